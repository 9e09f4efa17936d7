//! Small things that know nothing of a mesh: units, names, addresses, back-off, the clock.
