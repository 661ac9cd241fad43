abi <abi/3.0>,
profile one {
  /one r,
}
profile two flags=(attach_disconnected, mediate_deleted) {
  /two r,
}
