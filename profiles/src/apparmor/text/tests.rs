//! Claims about what a text declares, one text each.

use super::*;
