//! The difference between what should be and what is; pure.

use std::collections::HashMap;
use std::hash::Hash;

/// Removals first, then puts, turn what is into what should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delta<K, V> {
    pub(crate) remove: Vec<K>,
    pub(crate) put: Vec<(K, V)>,
    /// Keys that are touched; one that is removed and put again counts once.
    pub(crate) changed: usize,
}

/// `have` holds `None` where an entry exists that a put cannot turn into the wanted one: it is removed first.
pub(crate) fn delta<K: Eq + Hash + Copy + Ord, V: PartialEq + Copy>(
    want: &HashMap<K, V>,
    have: &HashMap<K, Option<V>>,
) -> Delta<K, V> {
    let mut remove: Vec<K> = have
        .iter()
        .filter(|(key, value)| value.is_none() || !want.contains_key(key))
        .map(|(key, _)| *key)
        .collect();
    let mut put: Vec<(K, V)> = want
        .iter()
        .filter(|(key, value)| have.get(key).copied().flatten() != Some(**value))
        .map(|(key, value)| (*key, *value))
        .collect();
    // A fixed order, so that runs can be compared.
    remove.sort_unstable();
    put.sort_unstable_by_key(|(key, _)| *key);
    let replaced = remove.iter().filter(|key| want.contains_key(key)).count();
    Delta { changed: remove.len() + put.len() - replaced, remove, put }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn applying_it_reaches_what_is_wanted_and_then_nothing_is_left(
            want in prop::collection::hash_map(0u8..20, 0u8..4, 0..20),
            have in prop::collection::hash_map(0u8..20, prop::option::of(0u8..4), 0..20),
        ) {
            let change = delta(&want, &have);
            let mut state = have.clone();
            for key in &change.remove {
                prop_assert!(state.remove(key).is_some(), "removes what is not there");
            }
            for (key, value) in &change.put {
                prop_assert_ne!(state.get(key), Some(&None), "puts over what cannot be replaced");
                prop_assert_ne!(state.insert(*key, Some(*value)), Some(Some(*value)), "puts what is there");
            }
            let wanted: HashMap<_, _> = want.iter().map(|(k, v)| (*k, Some(*v))).collect();
            prop_assert_eq!(&state, &wanted);
            prop_assert_eq!(delta(&want, &state).changed, 0);
        }
    }
}
