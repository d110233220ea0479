//! One host from inside: the message loop, the lock, dispatch to what is below.
