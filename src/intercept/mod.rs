//! How traffic reaches us without the application knowing: redirect rules and the original destination.
