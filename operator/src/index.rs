//! One kind's objects as the watch shows them, found by namespace and name or by group: what concerns one app is found in the size of that,
//! however much else there is.
//!
//! # Guarantees
//! A list that is under way changes nothing until it is whole. An object is in one group at most. Where each namespace is watched by itself, a list of one leaves
//! the others as they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::{Resource, ResourceExt};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// The groups that an object could be found in: it goes into the one with the fewest members, so that a label that all share does not make
/// one group of all.
pub(crate) type Groups<K> = fn(&K) -> Vec<String>;

/// Shared by the watch, which writes, and the plans, which read.
pub(crate) struct Index<K>(Arc<Shared<K>>);

struct Shared<K> {
    groups: Groups<K>,
    shelves: RwLock<Shelves<K>>,
    listed: watch::Sender<bool>,
}

struct Shelves<K> {
    now: Namespaces<K>,
    /// A list that is under way.
    coming: Namespaces<K>,
    /// Of these no list was whole yet.
    unlisted: BTreeSet<Scope>,
    /// The namespaces among them that we may not list, as the API server says: nobody waits for these.
    refused: BTreeSet<Scope>,
}

impl<K> Shelves<K> {
    fn all_are_listed(&self) -> bool {
        self.unlisted.is_subset(&self.refused)
    }
}

/// What one watch shows: one namespace, or everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    All,
    Namespace(String),
}

type Namespaces<K> = HashMap<String, Shelf<K>>;

struct Shelf<K> {
    named: BTreeMap<String, Placed<K>>,
    grouped: HashMap<String, BTreeMap<String, Arc<K>>>,
}

struct Placed<K> {
    object: Arc<K>,
    group: Option<String>,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), grouped: HashMap::new() }
    }
}

impl<K: Resource> Index<K> {
    /// `scopes`: what the watches that fill it show, one each.
    pub(crate) fn new(groups: Groups<K>, scopes: &[Scope]) -> Self {
        let unlisted = scopes.iter().cloned().collect();
        let shelves = RwLock::new(Shelves {
            now: HashMap::new(),
            coming: HashMap::new(),
            unlisted,
            refused: BTreeSet::new(),
        });
        Self(Arc::new(Shared { groups, shelves, listed: watch::Sender::new(false) }))
    }

    /// The object there was and the one there is now.
    pub(crate) fn apply(&self, object: K) -> (Option<Arc<K>>, Arc<K>) {
        let object = Arc::new(object);
        let before = put(&mut self.write().now, Arc::clone(&object), self.0.groups);
        (before, object)
    }

    /// The object that was there under this one's name.
    pub(crate) fn remove(&self, object: &K) -> Option<Arc<K>> {
        let mut shelves = self.write();
        let namespace = object.namespace().unwrap_or_default();
        let shelf = shelves.now.get_mut(&namespace)?;
        let gone = shelf.take(&object.name_any());
        if shelf.named.is_empty() {
            shelves.now.remove(&namespace);
        }
        gone
    }

    /// A list begins.
    pub(crate) fn begin(&self, scope: &Scope) {
        let coming = &mut self.write().coming;
        match scope {
            Scope::All => coming.clear(),
            Scope::Namespace(namespace) => drop(coming.remove(namespace)),
        }
    }

    /// One object of the list. One that has not changed keeps its place in memory. Returns the object there was and the one listed.
    pub(crate) fn list(&self, object: K) -> (Option<Arc<K>>, Arc<K>) {
        let before = self.get(&object.namespace().unwrap_or_default(), &object.name_any());
        let same = |there: &&Arc<K>| {
            there.meta().uid == object.meta().uid
                && there.meta().resource_version == object.meta().resource_version
                && object.meta().resource_version.is_some()
        };
        let object = match before.as_ref().filter(same) {
            Some(there) => Arc::clone(there),
            None => Arc::new(object),
        };
        put(&mut self.write().coming, Arc::clone(&object), self.0.groups);
        (before, object)
    }

    /// The list is whole: what is not in it is gone.
    pub(crate) fn finish(&self, scope: &Scope) {
        let mut shelves = self.write();
        match scope {
            Scope::All => shelves.now = std::mem::take(&mut shelves.coming),
            Scope::Namespace(namespace) => match shelves.coming.remove(namespace) {
                Some(shelf) => drop(shelves.now.insert(namespace.clone(), shelf)),
                None => drop(shelves.now.remove(namespace)),
            },
        }
        shelves.unlisted.remove(scope);
        shelves.refused.remove(scope);
        let all = shelves.all_are_listed();
        drop(shelves);
        self.0.listed.send_replace(all);
    }

    /// We may not list one namespace: its apps wait for that, and no other's.
    pub(crate) fn refuse(&self, scope: &Scope) {
        let mut shelves = self.write();
        if matches!(scope, Scope::Namespace(_)) && shelves.unlisted.contains(scope) {
            shelves.refused.insert(scope.clone());
        }
        let all = shelves.all_are_listed();
        drop(shelves);
        self.0.listed.send_replace(all);
    }

    /// There was a whole list of this namespace.
    pub(crate) fn knows(&self, namespace: &str) -> bool {
        let unlisted = &self.read().unlisted;
        !unlisted.contains(&Scope::All) && !unlisted.contains(&Scope::Namespace(namespace.to_owned()))
    }

    /// There was a whole list of each namespace: what is not here was nowhere.
    pub(crate) fn knows_all(&self) -> bool {
        self.read().unlisted.is_empty()
    }

    /// Waits for the first whole list of each watch, but of those that are refused.
    pub(crate) async fn listed(&self) {
        // The sender lives as long as this index does.
        let mut listed = self.0.listed.subscribe();
        let _never_closed = listed.wait_for(|listed| *listed).await;
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let shelves = self.read();
        shelves.now.get(namespace)?.named.get(name).map(|placed| Arc::clone(&placed.object))
    }

    /// The members of a group, by name.
    pub(crate) fn group(&self, namespace: &str, group: &str) -> Vec<Arc<K>> {
        let shelves = self.read();
        let members = shelves.now.get(namespace).and_then(|shelf| shelf.grouped.get(group));
        members.into_iter().flat_map(BTreeMap::values).map(Arc::clone).collect()
    }

    /// All of a namespace.
    pub(crate) fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        let shelves = self.read();
        let placed = shelves.now.get(namespace).into_iter().flat_map(|shelf| shelf.named.values());
        placed.map(|placed| Arc::clone(&placed.object)).collect()
    }

    /// All there are.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        let shelves = self.read();
        let placed = shelves.now.values().flat_map(|shelf| shelf.named.values());
        placed.map(|placed| Arc::clone(&placed.object)).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelves<K>> {
        self.0.shelves.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelves<K>> {
        self.0.shelves.write()
    }
}

fn put<K: Resource>(namespaces: &mut Namespaces<K>, object: Arc<K>, groups: Groups<K>) -> Option<Arc<K>> {
    let name = object.name_any();
    let shelf = namespaces.entry(object.namespace().unwrap_or_default()).or_default();
    let before = shelf.take(&name);
    let members = |group: &String| shelf.grouped.get(group).map_or(0, BTreeMap::len);
    let group = groups(&object).into_iter().min_by_key(members);
    if let Some(group) = &group {
        shelf.grouped.entry(group.clone()).or_default().insert(name.clone(), Arc::clone(&object));
    }
    shelf.named.insert(name, Placed { object, group });
    before
}

impl<K> Shelf<K> {
    fn take(&mut self, name: &str) -> Option<Arc<K>> {
        let Placed { object, group } = self.named.remove(name)?;
        if let Some(group) = group
            && let Some(members) = self.grouped.get_mut(&group)
        {
            members.remove(name);
            if members.is_empty() {
                self.grouped.remove(&group);
            }
        }
        Some(object)
    }
}

#[cfg(test)]
mod tests;
