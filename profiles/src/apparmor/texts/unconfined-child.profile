profile demo {
  /demo r,
  profile inner flags=(unconfined) {
  }
}
