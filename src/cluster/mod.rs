//! Many hosts: plan, lanes, up, down, status as literal tables of steps.
