//! The real program against real hosts. `make test-hosts` says where the program and the bundle are.

mod bad_input;
mod bed;
mod both_ways;
mod certificates;
mod check;
mod converge;
mod curve;
mod external_etcd;
mod faults;
mod flags;
mod fleet;
mod golden;
mod high_availability;
mod interruption;
mod joining;
mod leaving;
mod lifecycle;
mod minors;
mod operations;
mod plan;
mod playbooks;
mod privileges;
mod program;
mod transport;
mod tunnel;
mod vagrant;
