//! What tests that try much at random begin with.
//!
//! Invariant: the same each time, unless the variable `PAVISE_SEED` is another number when they are built.

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The number that all of it follows from. `PAVISE_SEED=7 cargo test -p pavise-profiles` builds the tests
/// anew with another one: nothing in this crate reads its environment when it runs.
pub(crate) fn number() -> u64 {
    option_env!("PAVISE_SEED").map_or(0, |text| text.parse().expect("PAVISE_SEED is a number"))
}

/// Runs this many cases, which follow from the seed.
pub(crate) fn runner(cases: u32) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number().to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}
