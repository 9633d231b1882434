//! `ca`.

use crate::fake::Fake;
use crate::support::run;

#[test]
fn keys_are_rotated_when_asked_and_it_says_where_to_look() {
    let fake = Fake::new();
    let said = run(&fake, "ca --rotate-network-keys").ok();
    assert!(said.contains("'swarmctl network inspect'"), "{said}");
    assert_eq!(fake.world().asked, ["rotate_network_keys"]);
}
