@{x}=docker-default
profile @{x} {
  /demo r,
}
