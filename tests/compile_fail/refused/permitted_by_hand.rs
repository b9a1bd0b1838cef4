//! E0603: Only the grants in force make a permission; nobody outside can as much as name one.
use trave_gateway::access::{Access, Permitted};

fn forge(access: &Access) -> Permitted {
    Permitted { grant: access.list().remove(0), group: None, endpoint: None }
}

fn main() {}
