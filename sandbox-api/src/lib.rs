//! REST, dashboard and the all-in-one daemon. Empty until they are built.
