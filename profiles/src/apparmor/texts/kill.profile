profile demo flags=(kill) {
  /demo r,
}
