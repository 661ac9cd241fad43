profile demo flags=(complain) {
  /demo r,
  profile inner {
    /inner r,
  }
}
