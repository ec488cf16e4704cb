//! What layers come to, by example and against a model that knows nothing of inodes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> GuestPath {
    GuestPath::parse(text.as_bytes()).unwrap()
}

fn entry(text: &str, node: Node) -> Entry {
    Entry {
        path: path(text),
        meta: Meta::of_root(0o644),
        node,
    }
}

fn file(text: &str, number: u64) -> Entry {
    let content = Content {
        number,
        size_bytes: 1,
        data_bytes: 1,
    };
    entry(text, Node::File(content))
}

fn folder(text: &str) -> Entry {
    entry(text, Node::Directory)
}

fn symlink(text: &str, target: &str) -> Entry {
    entry(text, Node::Symlink(target.as_bytes().to_vec()))
}

fn hard_link(text: &str, target: &str) -> Entry {
    entry(text, Node::HardLink(path(target)))
}

fn merge(layers: Vec<Vec<Entry>>) -> Result<Tree, MergeError> {
    let mut tree = Tree::default();
    for layer in layers {
        tree.apply(layer, Whiteouts::Honoured)?;
    }
    Ok(tree)
}

/// Every path with what is there: a folder's slash, a file's content, a link's target.
fn listing(tree: &Tree) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(String::new(), Tree::ROOT)];
    while let Some((place, id)) = folders.pop() {
        for (name, &child) in tree.children(id).into_iter().flatten() {
            let path = format!("{place}/{}", String::from_utf8_lossy(name));
            let what = match &tree.inode(child).kind {
                Kind::Directory(_) => {
                    folders.push((path.clone(), child));
                    "/".to_owned()
                }
                Kind::File(content) => content.number.to_string(),
                Kind::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
                Kind::Device { major, minor, .. } => format!("{major}:{minor}"),
                Kind::Fifo => "|".to_owned(),
            };
            found.insert(path, what);
        }
    }
    found
}

fn paths(tree: &Tree) -> Vec<String> {
    listing(tree).into_keys().collect()
}

#[test]
fn a_whiteout_removes_what_is_below_and_only_that() {
    let tree = merge(vec![
        vec![file("a/x", 1), file("a/y", 2), file("b/z", 3)],
        // It stands behind what the same layer makes in its place.
        vec![
            file("a/x", 4),
            entry("a/.wh.x", Node::Fifo),
            file("b/.wh.z", 0),
            file(".wh.none", 0),
        ],
    ])
    .unwrap();
    let found = listing(&tree);
    assert_eq!(found["/a/x"], "4");
    assert_eq!(paths(&tree), ["/a", "/a/x", "/a/y", "/b"]);
}

#[test]
fn an_opaque_folder_keeps_what_its_own_layer_makes() {
    let tree = merge(vec![
        vec![file("a/x", 1), file("a/d/y", 2)],
        vec![
            file("a/new", 3),
            file("a/.wh..wh..opq", 0),
            file("a/.wh..wh.plnk", 0),
        ],
    ])
    .unwrap();
    assert_eq!(paths(&tree), ["/a", "/a/new"]);
}

#[test]
fn a_whiteout_of_a_folder_takes_all_below_it_along() {
    let tree = merge(vec![
        vec![file("a/d/e/x", 1), file("a/k", 2)],
        vec![file("a/.wh.d", 0)],
        vec![folder("a/d")],
    ])
    .unwrap();
    assert_eq!(paths(&tree), ["/a", "/a/d", "/a/k"]);
}

#[test]
fn a_file_replaces_a_folder_and_a_folder_a_file() {
    let tree = merge(vec![
        vec![file("a/x", 1), file("b", 2)],
        vec![file("a", 3), file("b/y", 4)],
    ])
    .unwrap();
    let found = listing(&tree);
    assert_eq!(found["/a"], "3");
    assert_eq!(found["/b/y"], "4");
    assert_eq!(found.len(), 3);
}

#[test]
fn a_folder_over_a_folder_changes_its_owner_and_keeps_its_content() {
    let mut changed = folder("a");
    changed.meta.uid = 7;
    let tree = merge(vec![vec![file("a/x", 1)], vec![changed]]).unwrap();
    let a = tree.child(Tree::ROOT, b"a").unwrap();
    assert_eq!(tree.inode(a).meta.uid, 7);
    assert_eq!(paths(&tree), ["/a", "/a/x"]);
}

#[test]
fn a_hard_link_reaches_into_lower_layers_and_outlives_its_target() {
    let tree = merge(vec![
        vec![file("a", 1)],
        vec![hard_link("b", "a")],
        vec![file(".wh.a", 0)],
    ])
    .unwrap();
    assert_eq!(listing(&tree), [("/b".to_owned(), "1".to_owned())].into());
    assert_eq!(tree.census().unwrap().inodes, 2);

    let tree = merge(vec![vec![file("a", 1), hard_link("b", "a"), file("a", 2)]]).unwrap();
    let found = listing(&tree);
    assert_eq!((found["/a"].as_str(), found["/b"].as_str()), ("2", "1"));
}

#[test]
fn a_hard_link_to_what_is_gone_or_a_folder_fails() {
    let gone = merge(vec![
        vec![file("a", 1)],
        vec![file(".wh.a", 0), hard_link("b", "a")],
    ]);
    assert!(matches!(gone, Err(MergeError::NoTarget { .. })));
    let to_folder = merge(vec![vec![folder("a"), hard_link("b", "a")]]);
    assert!(matches!(to_folder, Err(MergeError::LinkToFolder { .. })));
    let to_root = merge(vec![vec![hard_link("b", "/")]]);
    assert!(matches!(to_root, Err(MergeError::LinkToFolder { .. })));
    let to_itself = merge(vec![vec![file("a", 1), hard_link("a", "a")]]).unwrap();
    assert_eq!(listing(&to_itself)["/a"], "1");
}

#[test]
fn trap_33_symbolic_links_lead_nowhere_but_inside() {
    let tree = merge(vec![
        vec![
            folder("usr/lib"),
            symlink("lib", "usr/lib"),
            symlink("out", "/../../../etc"),
            symlink("up", "../.."),
        ],
        vec![
            file("lib/x", 1),
            file("out/passwd", 2),
            file("up/y", 3),
            file("lib/.wh.gone", 0),
        ],
    ])
    .unwrap();
    let found = listing(&tree);
    assert_eq!(found["/usr/lib/x"], "1");
    assert_eq!(found["/etc/passwd"], "2");
    assert_eq!(found["/y"], "3");
    assert_eq!(found["/lib"], "-> usr/lib");
    let round = merge(vec![vec![
        symlink("a", "b"),
        symlink("b", "a"),
        file("a/x", 1),
    ]]);
    assert!(matches!(round, Err(MergeError::SymlinkLoop(_))));
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in [".wh.", ".wh..", ".wh..."] {
        let merged = merge(vec![vec![file(name, 0)]]);
        assert!(matches!(merged, Err(MergeError::BadWhiteout(_))), "{name}");
    }
}

#[test]
fn in_a_plain_archive_no_name_is_a_whiteout() {
    let mut tree = Tree::default();
    tree.apply(vec![file("a", 1), file(".wh.a", 2)], Whiteouts::Literal)
        .unwrap();
    assert_eq!(paths(&tree), ["/.wh.a", "/a"]);
}

/// Names few enough that they meet.
fn some_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| names.join("/"))
}

#[derive(Debug, Clone)]
enum Change {
    File(String),
    Folder(String),
    Gone(String),
    Opaque(String),
    Link(String, String),
}

fn some_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => some_path().prop_map(Change::File),
        2 => some_path().prop_map(Change::Folder),
        1 => some_path().prop_map(Change::Gone),
        1 => some_path().prop_map(Change::Opaque),
        2 => (some_path(), some_path()).prop_map(|(path, target)| Change::Link(path, target)),
    ]
}

/// A file system as a map from whole paths to contents, folders being `None`.
#[derive(Debug, Default, Clone)]
struct Model(BTreeMap<String, Option<u64>>);

impl Model {
    fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.0
            .keys()
            .filter(|key| key.starts_with(&prefix))
            .cloned()
            .collect()
    }

    fn clear(&mut self, path: &str) {
        for key in self.below(path) {
            self.0.remove(&key);
        }
    }

    fn parents(&mut self, path: &str) {
        let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
        for at in slashes {
            self.0.insert(path[..at].to_owned(), None);
        }
    }

    fn put(&mut self, path: &str, content: u64) {
        self.parents(path);
        self.clear(path);
        self.0.insert(path.to_owned(), Some(content));
    }

    /// Applies a layer; `false` where a hard link has no target.
    fn apply(&mut self, layer: &[(Change, u64)]) -> bool {
        for (change, _) in layer {
            match change {
                Change::Gone(path) => {
                    self.clear(path);
                    self.0.remove(path);
                }
                Change::Opaque(path) => self.clear(path),
                _ => {}
            }
        }
        for (change, number) in layer {
            match change {
                Change::File(path) => self.put(path, *number),
                Change::Folder(path) => {
                    self.parents(path);
                    self.0.insert(path.clone(), None);
                }
                Change::Link(path, target) => {
                    self.parents(path);
                    match self.0.get(target).copied().flatten() {
                        Some(content) => self.put(path, content),
                        None => return false,
                    }
                }
                _ => {}
            }
        }
        true
    }
}

fn as_entry(change: &Change, number: u64) -> Entry {
    match change {
        Change::File(path) => file(path, number),
        Change::Folder(path) => folder(path),
        Change::Gone(path) => {
            let (place, name) = path.rsplit_once('/').unwrap_or(("", path));
            file(&format!("{place}/.wh.{name}"), 0)
        }
        Change::Opaque(path) => file(&format!("{path}/.wh..wh..opq"), 0),
        Change::Link(path, target) => hard_link(path, target),
    }
}

proptest! {
    #[test]
    fn layers_come_to_what_the_model_says(
        layers in prop::collection::vec(prop::collection::vec(some_change(), 0..8), 1..5)
    ) {
        let mut number = 0;
        let mut model = Model::default();
        let mut tree = Tree::default();
        for layer in layers {
            let layer: Vec<_> = layer
                .into_iter()
                .map(|change| {
                    number += 1;
                    (change, number)
                })
                .collect();
            let fits = model.apply(&layer);
            let entries = layer.iter().map(|(change, number)| as_entry(change, *number));
            let applied = tree.apply(entries.collect(), Whiteouts::Honoured);
            prop_assert_eq!(applied.is_ok(), fits, "{:?}", applied);
            if !fits {
                return Ok(());
            }
        }
        let found: BTreeMap<_, _> = listing(&tree)
            .into_iter()
            .map(|(path, what)| (path[1..].to_owned(), what.parse::<u64>().ok()))
            .collect();
        prop_assert_eq!(&found, &model.0);
        prop_assert!(found.keys().all(|path| !path.contains(".wh.")));

        // A content has as many names as its inode, and is counted once.
        let census = tree.census().unwrap();
        let names: u32 = census.links.values().sum();
        prop_assert_eq!(names as usize, found.values().flatten().count());
        let mut contents: Vec<_> = found.values().flatten().collect();
        contents.sort();
        contents.dedup();
        prop_assert_eq!(census.links.len(), contents.len());
    }

    #[test]
    fn trap_33_no_path_is_taken_that_could_leave_a_root(raw in prop::collection::vec(
        prop::sample::select(b"./ab\0".to_vec()), 0..20))
    {
        if let Ok(path) = GuestPath::parse(&raw) {
            let text = path.to_string();
            prop_assert!(text.split('/').skip(1).all(|name| name != ".." && name != "."));
            prop_assert!(text == "/" || !text[1..].split('/').any(str::is_empty));
        }
    }
}
