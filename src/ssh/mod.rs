//! The only user of russh: authentication, known hosts, channels.
