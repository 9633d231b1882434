//! Indexes: objects by what they belong to. They hold the objects themselves, so that a walk looks nothing up.

use std::sync::Arc;

use imbl::OrdMap;

/// By `K`, the objects that belong to it, in the order of `L`.
pub(crate) type Index<K, L, T> = OrdMap<K, OrdMap<L, Arc<T>>>;

/// Adds an object, or puts it in the place of its predecessor.
pub(crate) fn index<K: Ord + Clone, L: Ord + Clone, T>(
    map: &mut Index<K, L, T>,
    key: &K,
    at: L,
    object: &Arc<T>,
) {
    if let Some(objects) = map.get_mut(key) {
        objects.insert(at, Arc::clone(object));
    } else {
        map.insert(key.clone(), OrdMap::unit(at, Arc::clone(object)));
    }
}

/// Takes an object out.
pub(crate) fn unindex<K: Ord + Clone, L: Ord + Clone, T>(
    map: &mut Index<K, L, T>,
    key: &K,
    at: &L,
) {
    if let Some(objects) = map.get_mut(key) {
        objects.remove(at);
        if objects.is_empty() {
            map.remove(key);
        }
    }
}

/// The objects that belong to a key.
pub(crate) fn within<'a, K: Ord, L: Ord, T>(
    map: &'a Index<K, L, T>,
    key: &K,
) -> impl Iterator<Item = &'a Arc<T>> + use<'a, K, L, T> {
    map.get(key).into_iter().flat_map(OrdMap::values)
}
