use std::fs;
use std::os::unix::fs::symlink;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

fn parse(text: &str) -> ResolvConf {
    ResolvConf::parse(text, |name| (name == "eth0").then_some(7))
}

fn servers(conf: &ResolvConf) -> Vec<String> {
    conf.servers.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn reads_servers_of_both_families() {
    let conf = parse(
        "# comment\n; comment\nnameserver 127.0.0.53\r\n  nameserver\t10.0.0.1 # why\n\
         nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver fe80::2%3\nnameserver fe80::3%gone\n\
         nameserver 10.0.0.1\nnameserver\nnameserver example.com\nnameserver 1.2.3\n#nameserver 9.9.9.9\n\
         options ndots:5\nsortlist 10.0.0.0\nNAMESERVER 8.8.8.8\n",
    );
    assert_eq!(
        servers(&conf),
        [
            "127.0.0.53:53",
            "10.0.0.1:53",
            "[2001:db8::1]:53",
            "[fe80::1%7]:53",
            "[fe80::2%3]:53"
        ]
    );
    assert_eq!(conf.search, Vec::<String>::new());
}

#[test]
fn the_last_search_or_domain_line_counts() {
    assert_eq!(
        parse("search a.example B.example.\n").search,
        ["a.example", "b.example"]
    );
    assert_eq!(
        parse("search a.example\ndomain c.example d\n").search,
        ["c.example"]
    );
    assert_eq!(parse("domain c.example\nsearch a . b").search, ["a", "b"]);
    assert_eq!(parse("search a\nsearch").search, Vec::<String>::new());
}

#[test]
fn there_is_an_end_to_everything() {
    let many: String = (0..200)
        .map(|n| format!("nameserver 10.0.0.{n}\n"))
        .collect();
    assert_eq!(parse(&many).servers.len(), SERVER_LIMIT);
    let wide = format!("search {}", "x ".repeat(1000));
    assert_eq!(parse(&wide).search.len(), SEARCH_LIMIT);
}

#[test]
fn loopback_has_the_index_that_the_kernel_gave_it() {
    let index: u32 = fs::read_to_string("/sys/class/net/lo/ifindex")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(interface_index("lo"), Some(index));
    assert_eq!(interface_index("no-such-dev"), None);
    assert_eq!(interface_index(&"x".repeat(100)), None);
}

#[test]
fn what_is_no_text_file_means_no_resolvers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    assert_eq!(ResolvConf::read(&path), ResolvConf::default());
    assert_eq!(ResolvConf::read(folder.path()), ResolvConf::default());
    fs::write(&path, b"\xff\xfe\0\nnameserver 10.0.0.1\n\0\0nameserver").unwrap();
    assert_eq!(servers(&ResolvConf::read(&path)), ["10.0.0.1:53"]);
    // A pipe without a writer would hold up everyone who opens it plainly.
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    assert_eq!(ResolvConf::read(&path), ResolvConf::default());
    // A file that never ends is read for a while only.
    fs::remove_file(&path).unwrap();
    let mut long = "nameserver 10.0.0.1\n".to_owned();
    long.push_str(&"#".repeat(SIZE_LIMIT as usize));
    long.push_str("\nnameserver 10.0.0.2\n");
    fs::write(&path, long).unwrap();
    assert_eq!(servers(&ResolvConf::read(&path)), ["10.0.0.1:53"]);
}

/// A folder with a watched path in it.
struct Scene {
    folder: tempfile::TempDir,
    watch: Watch,
}

impl Scene {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let watch = Watch::new(folder.path().join("resolv.conf")).unwrap();
        Self { folder, watch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.watch, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    /// The change is signalled by the descriptor, is reported once, and leaves the descriptor quiet.
    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        assert!(self.is_readable(), "nothing was signalled");
        let conf = self.watch.changed().expect("no change was seen");
        assert_eq!(servers(&conf), expected);
        assert_eq!(self.watch.current(), &conf);
        assert_eq!(self.watch.changed(), None);
        assert!(!self.is_readable());
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        assert_eq!(self.watch.changed(), None);
        assert!(!self.is_readable());
    }
}

const ONE: &str = "nameserver 10.0.0.1\n";
const TWO: &str = "nameserver 10.0.0.2\n";

#[test]
fn follows_a_file_that_is_written_replaced_deleted_and_made_anew() {
    let mut scene = Scene::new(|folder| fs::write(folder.join("resolv.conf"), ONE).unwrap());
    assert_eq!(servers(scene.watch.current()), ["10.0.0.1:53"]);
    scene.expect_nothing();
    let path = scene.path("resolv.conf");
    fs::write(&path, TWO).unwrap();
    scene.expect(&["10.0.0.2:53"]);
    // The same meaning in other words is no change.
    fs::write(&path, format!("# by hand\n{TWO}")).unwrap();
    scene.expect_nothing();
    for round in 0..3 {
        let text = [ONE, TWO][round % 2];
        fs::write(scene.path("new"), text).unwrap();
        fs::rename(scene.path("new"), &path).unwrap();
        scene.expect(&[["10.0.0.1:53", "10.0.0.2:53"][round % 2]]);
    }
    fs::remove_file(&path).unwrap();
    scene.expect(&[]);
    fs::write(&path, TWO).unwrap();
    scene.expect(&["10.0.0.2:53"]);
    // The new file is followed as the old one was.
    fs::write(&path, ONE).unwrap();
    scene.expect(&["10.0.0.1:53"]);
    assert!(scene.watch.watched.len() <= 2, "watches are left behind");
}

#[test]
fn a_path_that_does_not_exist_yet_is_no_error() {
    let mut scene = Scene::new(|_| {});
    assert_eq!(scene.watch.current(), &ResolvConf::default());
    fs::write(scene.path("resolv.conf"), ONE).unwrap();
    scene.expect(&["10.0.0.1:53"]);
}

#[test]
fn follows_a_link_that_is_switched_and_the_file_behind_it() {
    let mut scene = Scene::new(|folder| {
        for (name, text) in [("stub", ONE), ("plain", TWO)] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("conf"), text).unwrap();
        }
        symlink("stub/conf", folder.join("resolv.conf")).unwrap();
    });
    assert_eq!(servers(scene.watch.current()), ["10.0.0.1:53"]);
    // The file behind it, replaced by rename as NetworkManager does.
    fs::write(scene.path("stub/new"), "nameserver 10.0.0.3\n").unwrap();
    fs::rename(scene.path("stub/new"), scene.path("stub/conf")).unwrap();
    scene.expect(&["10.0.0.3:53"]);
    // The link, switched in one step.
    symlink(scene.path("plain/conf"), scene.path("next")).unwrap();
    fs::rename(scene.path("next"), scene.path("resolv.conf")).unwrap();
    scene.expect(&["10.0.0.2:53"]);
    // The new target is followed, the old one is not any more.
    fs::write(scene.path("plain/conf"), ONE).unwrap();
    scene.expect(&["10.0.0.1:53"]);
    fs::write(scene.path("stub/conf"), TWO).unwrap();
    assert!(!scene.is_readable());
}

#[test]
fn waits_for_the_folder_of_a_dangling_link() {
    let mut scene =
        Scene::new(|folder| symlink("run/resolve/conf", folder.join("resolv.conf")).unwrap());
    assert_eq!(scene.watch.current(), &ResolvConf::default());
    fs::create_dir(scene.path("run")).unwrap();
    scene.expect_nothing();
    fs::create_dir(scene.path("run/resolve")).unwrap();
    scene.expect_nothing();
    fs::write(scene.path("run/resolve/conf"), ONE).unwrap();
    scene.expect(&["10.0.0.1:53"]);
    // The service stops and takes its folder along, then starts again.
    fs::remove_dir_all(scene.path("run/resolve")).unwrap();
    scene.expect(&[]);
    fs::create_dir(scene.path("run/resolve")).unwrap();
    fs::write(scene.path("run/resolve/conf"), TWO).unwrap();
    scene.expect(&["10.0.0.2:53"]);
}

#[test]
fn links_in_a_circle_mean_no_resolvers() {
    let mut scene = Scene::new(|folder| {
        symlink("other", folder.join("resolv.conf")).unwrap();
        symlink("resolv.conf", folder.join("other")).unwrap();
    });
    assert_eq!(scene.watch.current(), &ResolvConf::default());
    fs::remove_file(scene.path("other")).unwrap();
    fs::write(scene.path("other"), ONE).unwrap();
    scene.expect(&["10.0.0.1:53"]);
}

#[test]
fn many_events_at_once_are_taken() {
    let mut scene = Scene::new(|folder| fs::write(folder.join("resolv.conf"), ONE).unwrap());
    for n in 0..300 {
        fs::write(scene.path(&format!("noise-{n}")), "x").unwrap();
    }
    scene.expect_nothing();
    fs::write(scene.path("resolv.conf"), TWO).unwrap();
    scene.expect(&["10.0.0.2:53"]);
}
