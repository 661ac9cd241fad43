profile outer {
  file,
  profile inner {
    /bin/** r,
  }
  ^hat {
    /etc/hat r,
  }
}
