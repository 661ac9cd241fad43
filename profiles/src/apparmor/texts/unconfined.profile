profile demo flags=(unconfined) {
}
