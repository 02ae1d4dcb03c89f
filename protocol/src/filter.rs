//! What subscribers ask.
