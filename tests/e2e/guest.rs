//! The node with a kernel of its own is what it is said to be.

use crate::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[];
