profile outer {
  /usr/bin/inner cx,
  profile /usr/bin/inner {
    /bin/** r,
  }
}
