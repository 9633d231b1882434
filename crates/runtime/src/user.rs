//! `user[:group]` to numbers, by the container's own `/etc/passwd` and `/etc/group`, with the rules of
//! moby/sys/user `GetExecUser`.

/// Largest user database that is looked at.
pub(crate) const MAX_DATABASE: u64 = 1 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let f: Vec<&str> = line.trim().split(':').collect();
        let (name, uid, gid) = (f.first()?, f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?);
        Some(PasswdEntry { name, uid, gid, home: f.get(5).copied().unwrap_or("/") })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let f: Vec<&str> = line.trim().split(':').collect();
        let members =
            f.get(3).map(|m| m.split(',').filter(|m| !m.is_empty()).collect()).unwrap_or_default();
        Some(GroupEntry { name: f.first()?, gid: f.get(2)?.parse().ok()?, members })
    })
}

/// Resolves `wanted` with the texts of the two databases (empty if there are none).
///
/// # Errors
/// Docker's words for a name that is not in its database.
pub(crate) fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_name) = wanted.split_once(':').unwrap_or((wanted, ""));
    let number = user.parse::<u32>().ok();
    let entry = passwd_entries(passwd).find(|e| {
        if user.is_empty() { e.uid == 0 } else { e.name == user || Some(e.uid) == number }
    });
    let mut found = match (&entry, number) {
        (Some(e), _) => User { uid: e.uid, gid: e.gid, groups: vec![], home: e.home.to_owned() },
        (None, _) if user.is_empty() => {
            User { uid: 0, gid: 0, groups: vec![], home: "/root".into() }
        }
        (None, Some(uid)) if uid <= i32::MAX as u32 => {
            User { uid, gid: 0, groups: vec![], home: "/".into() }
        }
        (None, Some(_)) => return Err("uids and gids must be in range 0-2147483647".into()),
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    if group_name.is_empty() {
        if let Some(e) = &entry {
            found.groups = group_entries(group)
                .filter(|g| g.members.contains(&e.name))
                .map(|g| g.gid)
                .collect();
        }
    } else {
        found.gid = resolve_group(group_name, group)?;
    }
    Ok(found)
}

fn resolve_group(wanted: &str, group: &str) -> Result<u32, String> {
    let number = wanted.parse::<u32>().ok();
    match (group_entries(group).find(|g| g.name == wanted || Some(g.gid) == number), number) {
        (Some(g), _) => Ok(g.gid),
        (None, Some(gid)) if gid <= i32::MAX as u32 => Ok(gid),
        (None, Some(_)) => Err("uids and gids must be in range 0-2147483647".into()),
        (None, None) => {
            Err(format!("unable to find group {wanted}: no matching entries in group file"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:4:web,other\nstaff:x:50:web\n";

    fn get(wanted: &str) -> Result<User, String> {
        resolve(wanted, PASSWD, GROUP)
    }

    #[test]
    fn names_numbers_and_groups() {
        let web = User { uid: 33, gid: 34, groups: vec![4, 50], home: "/var/www".into() };
        assert_eq!(get("web").unwrap(), web);
        assert_eq!(get("33").unwrap(), web);
        assert_eq!(get("web:staff").unwrap(), User { gid: 50, groups: vec![], ..web });
        assert_eq!(
            get("1000:1001").unwrap(),
            User { uid: 1000, gid: 1001, groups: vec![], home: "/".into() }
        );
        assert_eq!(get("").unwrap().home, "/root");
        assert_eq!(resolve("", "", "").unwrap().uid, 0);
        assert_eq!(
            get("nobody").unwrap_err(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            get("0:x").unwrap_err(),
            "unable to find group x: no matching entries in group file"
        );
        assert!(get("4294967295").is_err());
    }
}
