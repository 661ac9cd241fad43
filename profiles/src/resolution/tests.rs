//! What becomes of references, as messages tell it.
