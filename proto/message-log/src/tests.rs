//! The promises of the log, held against disks that fail, tear and lose power.

mod support;
mod round_trip;
mod persons;
mod references;
mod power;
mod faults;
mod keys;
mod kinds;
mod damage;
mod erasure;
mod search;
mod archive;
mod pruning;
mod pruned;
mod pruned_again;
mod damaged;
mod repair;
mod expiry;
mod expiry_archive;
mod earlier;
