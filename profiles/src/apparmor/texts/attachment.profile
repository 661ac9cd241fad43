profile demo /usr/bin/demo-** {
  /demo r,
}
