//! The queue against a model, through random crashes.
