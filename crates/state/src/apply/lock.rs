//! The unlock key of the managers.

use swarm_model::{EncryptionConfig, ManagerLock, UnlockKeyText};

use super::Context;
use crate::command::Rejected;
use crate::tables::State;

impl State {
    pub(super) fn set_auto_lock(
        &mut self,
        cx: &mut Context,
        unlock_key: Option<UnlockKeyText>,
    ) -> Result<(), Rejected> {
        let locks = self.cluster().is_some_and(|c| c.manager_lock.unlock_key.is_some());
        if self.cluster().is_some() && locks == unlock_key.is_some() {
            return Ok(()); // users have the key there is
        }
        self.put_lock(cx, unlock_key)
    }

    pub(super) fn rotate_unlock_key(
        &mut self,
        cx: &mut Context,
        unlock_key: UnlockKeyText,
    ) -> Result<(), Rejected> {
        if self.cluster().is_some_and(|cluster| cluster.manager_lock.unlock_key.is_none()) {
            let text = "cannot rotate the unlock key: autolock is not turned on";
            return Err(Rejected::Invalid(text.into()));
        }
        self.put_lock(cx, Some(unlock_key))
    }

    fn put_lock(
        &mut self,
        cx: &mut Context,
        unlock_key: Option<UnlockKeyText>,
    ) -> Result<(), Rejected> {
        let auto_lock_managers = unlock_key.is_some();
        let revision = cx.revision;
        self.change_cluster(cx, |cluster| {
            cluster.spec.encryption_config = EncryptionConfig { auto_lock_managers };
            cluster.manager_lock = ManagerLock { unlock_key, revision };
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use swarm_model::{
        Cluster, ClusterSpec, FeatureLevel, JoinTokens, Meta, RootCaDocument, Timestamp,
    };

    use super::*;
    use crate::command::{Change, Command};

    fn lock(state: &State) -> (bool, Option<&str>, u64) {
        let cluster = state.cluster().unwrap();
        let lock = &cluster.manager_lock;
        let on = cluster.spec.encryption_config.auto_lock_managers;
        (on, lock.unlock_key.as_ref().map(|key| &*key.0), lock.revision)
    }

    fn apply(state: &mut State, revision: u64, change: Change) -> Result<(), Rejected> {
        let command = Command { now: Timestamp(1), changes: vec![change] };
        state.apply(revision, command).0.remove(0).map(drop)
    }

    #[test]
    fn the_unlock_key_changes_only_when_it_is_asked_for() {
        let set = |key: Option<&str>| Change::SetAutoLock {
            unlock_key: key.map(|key| UnlockKeyText(key.into())),
        };
        let rotate = |key: &str| Change::RotateUnlockKey { unlock_key: UnlockKeyText(key.into()) };
        let mut state = State::new();
        assert!(matches!(apply(&mut state, 1, set(Some("a"))), Err(Rejected::NotFound(_))));
        let cluster = Cluster {
            id: "c".into(),
            meta: Meta::default(),
            feature_level: FeatureLevel::FIRST,
            spec: ClusterSpec::default(),
            root_ca: RootCaDocument { cert_pem: String::new(), key_pem: String::new() },
            join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
            manager_lock: ManagerLock::default(),
            root_rotation: None,
        };
        apply(&mut state, 2, Change::CreateCluster(Box::new(cluster))).unwrap();
        assert_eq!(lock(&state), (false, None, 0));
        assert!(matches!(apply(&mut state, 3, rotate("a")), Err(Rejected::Invalid(_))));
        apply(&mut state, 4, set(Some("a"))).unwrap();
        assert_eq!(lock(&state), (true, Some("a"), 4));
        apply(&mut state, 5, set(Some("b"))).unwrap();
        assert_eq!(lock(&state), (true, Some("a"), 4), "it is on already");
        apply(&mut state, 6, rotate("c")).unwrap();
        assert_eq!(lock(&state), (true, Some("c"), 6));
        let mut state = State::from_snapshot(&state.to_snapshot()).unwrap();
        assert_eq!(lock(&state), (true, Some("c"), 6));
        apply(&mut state, 7, set(None)).unwrap();
        apply(&mut state, 8, set(None)).unwrap();
        assert_eq!(lock(&state), (false, None, 7));
    }
}
