//! The public faces of `livepeer-core` and `livepeer-runtime`, compared with the listings in `docs/api`.
//!
//! A change of a face is seen in review as a change of its listing. `REGENERATE=1 cargo test --workspace --test api`
//! writes the listings anew. They hold declarations without bodies, docs and private parts, sorted under the modules
//! that users name; the lint `unreachable_pub` sees to it that whatever is `pub` can be named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Visibility};

#[test]
fn the_face_of_core_is_as_listed() {
    is_as_listed("core");
}

#[test]
fn the_face_of_the_runtime_is_as_listed() {
    is_as_listed("runtime");
}

fn is_as_listed(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listing = root.join("docs/api").join(format!("{name}.txt"));
    let mut face = Face::default();
    face.read(&root.join(name).join("src/lib.rs"), "crate");
    let seen = face.print();
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&listing, seen).expect("a folder that can be written");
        return;
    }
    let listed = std::fs::read_to_string(&listing).expect("a listing");
    if let Some(difference) = difference(&listed, &seen) {
        panic!(
            "the public face of {name} has changed.\n{difference}\
             If that is meant, `REGENERATE=1 cargo test --workspace --test api` writes docs/api/{name}.txt anew."
        );
    }
}

/// The lines that only one of two texts has, at most twenty; `None` if the texts are equal.
fn difference(listed: &str, seen: &str) -> Option<String> {
    if listed == seen {
        return None;
    }
    let lines = |text: &'static str, of: &str, other: &str| -> Vec<String> {
        let other: BTreeSet<&str> = other.lines().collect();
        let only = of.lines().filter(|line| !other.contains(line));
        only.map(|line| format!("{text} {line}\n")).collect()
    };
    let mut all = lines("-", listed, seen);
    all.extend(lines("+", seen, listed));
    let more = all.len().saturating_sub(20);
    all.truncate(20);
    if more > 0 {
        all.push(format!("and {more} more lines\n"));
    }
    Some(all.concat())
}

/// Items that users of a crate can name.
#[derive(Default)]
struct Face {
    /// Declarations by module.
    declared: BTreeMap<String, Vec<Item>>,
    /// Implementations by module. They count if they are of a type that can be named.
    implemented: BTreeMap<String, Vec<syn::ItemImpl>>,
    types: BTreeSet<String>,
}

impl Face {
    /// Reads a file, which is the module `path` or a private part of it, and the files below it.
    fn read(&mut self, file: &Path, path: &str) {
        let text = std::fs::read_to_string(file).expect("a file that a module names");
        let parsed = syn::parse_file(&text).expect("a file that compiles");
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let folder = file.parent().expect("a file is in a folder");
        let below = match stem {
            Some("lib" | "mod") | None => folder.to_owned(),
            Some(stem) => folder.join(stem),
        };
        self.take_in(parsed.items, &below, path);
    }

    fn take_in(&mut self, items: Vec<Item>, below: &Path, path: &str) {
        for item in items {
            match item {
                Item::Mod(module) if is_for_tests(&module.attrs) => {}
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let inner = match module.vis {
                        Visibility::Public(_) => format!("{path}::{name}"),
                        _ => path.to_owned(),
                    };
                    match module.content {
                        Some((_, items)) => self.take_in(items, &below.join(&name), &inner),
                        None => self.read(&file_of(below, &name), &inner),
                    }
                }
                Item::Impl(one) => {
                    let all = self.implemented.entry(path.to_owned()).or_default();
                    all.push(one);
                }
                item => self.declare(item, path),
            }
        }
    }

    fn declare(&mut self, item: Item, path: &str) {
        let Some((named, item)) = bare(item) else {
            return;
        };
        self.types.extend(named);
        self.declared.entry(path.to_owned()).or_default().push(item);
    }

    fn print(self) -> String {
        let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, items) in self.declared {
            let lines = items.into_iter().map(text);
            modules.entry(path).or_default().extend(lines);
        }
        for (path, items) in self.implemented {
            let known = items.into_iter().filter(|one| {
                let syn::Type::Path(of) = &*one.self_ty else {
                    return true;
                };
                let name = of.path.segments.last().map(|last| last.ident.to_string());
                name.is_some_and(|name| self.types.contains(&name))
            });
            let lines = known.filter_map(outside_of).map(text);
            modules.entry(path).or_default().extend(lines);
        }
        let mut all = String::new();
        for (path, mut lines) in modules {
            lines.sort_unstable();
            all.push_str(&format!("# {path}\n\n"));
            all.push_str(&lines.concat());
            all.push('\n');
        }
        all
    }
}

fn file_of(below: &Path, name: &str) -> PathBuf {
    let flat = below.join(format!("{name}.rs"));
    if flat.exists() {
        return flat;
    }
    below.join(name).join("mod.rs")
}

fn text(item: Item) -> String {
    let file = syn::File {
        shebang: None,
        attrs: Vec::new(),
        items: vec![item],
    };
    prettyplease::unparse(&file)
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|what| what == "test")
    })
}

/// Keeps the attributes that users can tell.
fn keep_telling(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        ["derive", "non_exhaustive", "must_use", "cfg"]
            .iter()
            .any(|name| attribute.path().is_ident(name))
    });
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn empty() -> syn::Block {
    syn::parse_quote!({})
}

/// A public item without what users cannot see, and its name if it is a type.
fn bare(mut item: Item) -> Option<(Option<String>, Item)> {
    let (visibility, attributes, named) = match &mut item {
        Item::Const(one) => (&one.vis, &mut one.attrs, None),
        Item::Static(one) => (&one.vis, &mut one.attrs, None),
        Item::Type(one) => (&one.vis, &mut one.attrs, None),
        Item::Fn(one) => {
            *one.block = empty();
            (&one.vis, &mut one.attrs, None)
        }
        Item::Struct(one) => {
            hide_fields(&mut one.fields);
            (&one.vis, &mut one.attrs, Some(one.ident.to_string()))
        }
        Item::Enum(one) => {
            for variant in &mut one.variants {
                keep_telling(&mut variant.attrs);
                for field in &mut variant.fields {
                    keep_telling(&mut field.attrs);
                }
            }
            (&one.vis, &mut one.attrs, Some(one.ident.to_string()))
        }
        Item::Trait(one) => {
            for item in &mut one.items {
                hide_default(item);
            }
            (&one.vis, &mut one.attrs, None)
        }
        _ => return None,
    };
    if !is_public(visibility) || is_for_tests(attributes) {
        return None;
    }
    keep_telling(attributes);
    Some((named, item))
}

/// Takes out private fields. Where they have places instead of names, their types become `_`.
fn hide_fields(fields: &mut Fields) {
    match fields {
        Fields::Named(named) => {
            let all = std::mem::take(&mut named.named);
            named.named = all.into_iter().filter(|one| is_public(&one.vis)).collect();
        }
        Fields::Unnamed(unnamed) => {
            for one in &mut unnamed.unnamed {
                if !is_public(&one.vis) {
                    one.ty = syn::parse_quote!(_);
                }
            }
        }
        Fields::Unit => {}
    }
    for field in fields {
        keep_telling(&mut field.attrs);
    }
}

fn hide_default(item: &mut TraitItem) {
    match item {
        TraitItem::Fn(one) => {
            keep_telling(&mut one.attrs);
            if let Some(block) = &mut one.default {
                *block = empty();
            }
        }
        TraitItem::Type(one) => keep_telling(&mut one.attrs),
        TraitItem::Const(one) => keep_telling(&mut one.attrs),
        _ => {}
    }
}

/// An implementation as users see it; `None` if it has nothing for them.
fn outside_of(mut one: syn::ItemImpl) -> Option<Item> {
    if is_for_tests(&one.attrs) {
        return None;
    }
    keep_telling(&mut one.attrs);
    if one.trait_.is_some() {
        one.items.clear();
        return Some(Item::Impl(one));
    }
    one.items.retain_mut(|item| match item {
        ImplItem::Fn(inner) => {
            keep_telling(&mut inner.attrs);
            inner.block = empty();
            is_public(&inner.vis)
        }
        ImplItem::Const(inner) => {
            keep_telling(&mut inner.attrs);
            is_public(&inner.vis)
        }
        _ => false,
    });
    (!one.items.is_empty()).then_some(Item::Impl(one))
}
