profile :elsewhere:demo {
  /demo r,
}
