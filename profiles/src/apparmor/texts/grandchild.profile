profile outer {
  /outer r,
  profile middle {
    /middle r,
    profile inner {
      /inner r,
    }
  }
}
