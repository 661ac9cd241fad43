/usr/bin/demo {
  /demo r,
}
