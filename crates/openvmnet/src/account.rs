//! Users and groups of this machine (passwd(5), group(5)), by name or number. Those of directories on the network have no names
//! here, and are given by number.

use std::fs;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name; its number in digits if it has none.
    pub name: String,
    /// Its number.
    pub gid: u32,
}

/// The user of this name or number.
#[must_use]
pub fn user(asked: &str) -> Option<User> {
    user_in(&fs::read_to_string(USERS).unwrap_or_default(), asked)
}

/// The group of this name or number; a number need not have a name.
#[must_use]
pub fn group(asked: &str) -> Option<Group> {
    group_in(&fs::read_to_string(GROUPS).unwrap_or_default(), asked)
}

/// `NAME:PASSWORD:UID:GID:...`.
fn user_in(users: &str, asked: &str) -> Option<User> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        (name == asked || uid == asked).then_some(())?;
        Some(User {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    })
}

/// `NAME:PASSWORD:GID:MEMBERS`.
fn group_in(groups: &str, asked: &str) -> Option<Group> {
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        (name == asked || gid == asked).then_some(())?;
        Some(Group {
            name: name.to_owned(),
            gid: gid.parse().ok()?,
        })
    });
    named.or_else(|| {
        Some(Group {
            name: asked.to_owned(),
            gid: asked.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_number() {
        let groups = "root:x:0:\nbroken\nkvm:x:108:me,you\nkvm2:x:109:";
        let found = |asked| group_in(groups, asked).map(|group| (group.name, group.gid));
        assert_eq!(found("kvm"), Some(("kvm".to_owned(), 108)));
        assert_eq!(found("root"), Some(("root".to_owned(), 0)));
        assert_eq!(found("109"), Some(("kvm2".to_owned(), 109)));
        assert_eq!(found("27"), Some(("27".to_owned(), 27)));
        assert_eq!(found("broken"), None);
        assert_eq!(found("kv"), None);
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken:x\nnobody:x:65534:65533::/:/bin/false\n";
        let found = |asked| user_in(users, asked).map(|user| (user.uid, user.gid));
        assert_eq!(found("nobody"), Some((65534, 65533)));
        assert_eq!(found("65534"), Some((65534, 65533)));
        assert_eq!(found("root"), Some((0, 0)));
        assert_eq!(found("broken"), None);
        assert_eq!(found("7"), None);
    }
}
