//! The table of commands.

use crate::{auth, check, cluster, concurrency, doctor, globals, kv, lease, mirror, snapshot, top, txn, watch};
use cobra::{Call, Command, Exit, Program, completion, flag_usages, help_command};

const KEYS: &str = "Key-value commands";
const CLUSTER: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTHENTICATION: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

/// etcdctl.
pub static PROGRAM: Program = Program {
    root: Command {
        usage: "etcdctl",
        long: "Asks and changes an etcd cluster from the command line.",
        persistent: globals::FLAGS,
        commands: COMMANDS,
        ..Command::EMPTY
    },
    groups: &[KEYS, CLUSTER, CONCURRENCY, AUTHENTICATION, UTILITY],
    pointer: "Use \"etcdctl options\" for a list of global command-line options (applies to all commands).",
    repeats_errors: cobra::Repeats::Never,
};

const COMMANDS: &[Command] = &[
    Command {
        usage: "get [options] <key> [range_end]",
        short: "Prints a key, or all keys of a range",
        group: KEYS,
        flags: kv::GET_FLAGS,
        run: Some(kv::get),
        ..Command::EMPTY
    },
    Command {
        usage: "put [options] <key> <value> (<value> can also be given from stdin)",
        short: "Stores a value under a key",
        long: "Stores a value under a key.\n\nA value that begins with '-' looks like a flag; put '--' before it:\n\n  \
               etcdctl put <key> -- <value>\n  etcdctl put -- <key> <value>\n\nWithout a value (and without \
               --ignore-value) standard input is stored, to its last byte:\n\n  etcdctl put <key> < file",
        group: KEYS,
        flags: kv::PUT_FLAGS,
        run: Some(kv::put),
        ..Command::EMPTY
    },
    Command {
        usage: "del [options] <key> [range_end]",
        short: "Deletes a key, or all keys of a range [key, range_end)",
        group: KEYS,
        flags: kv::DEL_FLAGS,
        run: Some(kv::del),
        ..Command::EMPTY
    },
    Command {
        usage: "txn [options]",
        short: "Does several requests at once, if comparisons hold",
        long: "Does several requests at once, if comparisons hold.\n\nStandard input holds three lists, each ended by an empty \
               line: comparisons, requests for when all of them hold, requests for when one does not.\n\n  mod(\"key1\") > \
               \"0\"\n\n  put key1 \"overwritten\"\n\n  put key1 \"created\"\n  put key2 \"more\"\n\nA comparison is \
               TARGET(\"KEY\") OPERATOR \"VALUE\" with the targets ver, c (create revision), m (mod revision), val and lease, \
               and the operators =, !=, > and <.",
        group: KEYS,
        flags: txn::FLAGS,
        run: Some(txn::txn),
        ..Command::EMPTY
    },
    Command {
        usage: "compaction [options] <revision>",
        short: "Forgets the history before a revision",
        group: KEYS,
        flags: kv::COMPACTION_FLAGS,
        run: Some(kv::compaction),
        ..Command::EMPTY
    },
    ALARM,
    Command {
        usage: "defrag",
        short: "Gives unused space of the endpoints' databases back to their file systems",
        group: CLUSTER,
        flags: cluster::CLUSTER_FLAG,
        run: Some(cluster::defrag),
        ..Command::EMPTY
    },
    ENDPOINT,
    Command {
        usage: "move-leader <transferee-member-id>",
        short: "Hands leadership over to another member",
        group: CLUSTER,
        run: Some(cluster::move_leader),
        ..Command::EMPTY
    },
    Command {
        usage: "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
        short: "Prints changes of keys as they happen, or runs a command for each",
        group: KEYS,
        flags: watch::FLAGS,
        run: Some(watch::watch),
        ..Command::EMPTY
    },
    Command {
        usage: "version",
        short: "Prints etcdctl's version",
        group: UTILITY,
        run: Some(version),
        ..Command::EMPTY
    },
    LEASE,
    MEMBER,
    SNAPSHOT,
    Command {
        usage: "make-mirror [options] <destination>",
        short: "Copies keys to another cluster, and their changes",
        group: UTILITY,
        flags: mirror::FLAGS,
        run: Some(mirror::make_mirror),
        ..Command::EMPTY
    },
    Command {
        usage: "lock <lockname> [exec-command arg1 arg2 ...]",
        short: "Takes a lock by name and holds it, or runs a command under it",
        group: CONCURRENCY,
        flags: concurrency::LOCK_FLAGS,
        run: Some(concurrency::lock),
        ..Command::EMPTY
    },
    Command {
        usage: "elect <election-name> [proposal]",
        short: "Takes part in an election, or prints who leads",
        group: CONCURRENCY,
        flags: concurrency::ELECT_FLAGS,
        run: Some(concurrency::elect),
        ..Command::EMPTY
    },
    AUTH,
    USER,
    ROLE,
    CHECK,
    Command {
        usage: "top [options]",
        short: "Shows the members at a glance, again and again",
        long: "Shows the members at a glance, again and again: who leads, how much each holds and does, and how long its disk and \
               its peers take.\n\nREQ/S, PUT/S and READ/S count answers since the frame before, FSYNC and PEERS are what 99 of 100 \
               syncs of the log and round trips between members stayed within (in the first frame: since the member's start). \
               It ends with q or ctrl-C.",
        group: UTILITY,
        flags: top::FLAGS,
        run: Some(top::run),
        ..Command::EMPTY
    },
    Command {
        usage: "completion [bash|zsh|fish|powershell]",
        short: "Prints a completion script for a shell",
        group: UTILITY,
        one_of: completion::SHELLS,
        run: Some(completion::run),
        ..Command::EMPTY
    },
    DOWNGRADE,
    Command {
        usage: "options",
        short: "Lists the flags that all commands have",
        group: UTILITY,
        run: Some(options),
        ..Command::EMPTY
    },
    Command {
        usage: "help [command]",
        short: "Explains a command",
        group: UTILITY,
        run: Some(help_command),
        ..Command::EMPTY
    },
];

const SNAPSHOT: Command = Command {
    usage: "snapshot",
    short: "Snapshots of a member's database",
    example: "  # Save a snapshot of the member at this endpoint\n  etcdctl --endpoints=127.0.0.1:2379 snapshot save \
              /backup/etcd-snapshot.db",
    group: CLUSTER,
    commands: &[
        Command {
            usage: "save <filename>",
            short: "Stores a snapshot of a member's database in a file",
            run: Some(snapshot::save),
            ..Command::EMPTY
        },
        // Spellings of releases before 3.6, which tutorials still show.
        Command {
            usage: "status <filename>",
            short: "Old name of `etcdutl snapshot status`",
            hidden: true,
            run: Some(snapshot::status),
            ..Command::EMPTY
        },
        Command {
            usage: "restore <filename> --data-dir {output dir} [options]",
            short: "Old name of `etcdutl snapshot restore`",
            hidden: true,
            flags: etcdutl::RESTORE_FLAGS,
            run: Some(snapshot::restore),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const CHECK: Command = Command {
    usage: "check",
    short: "Tests of the cluster; see `etcdctl check --help`",
    group: UTILITY,
    commands: &[
        Command {
            usage: "datascale [options]",
            short: "Tells how much memory the server takes for a load of keys",
            long: "Tells how much memory the server takes for a load of keys.\n\nOnly the first endpoint is asked.",
            flags: check::DATASCALE_FLAGS,
            run: Some(check::datascale),
            ..Command::EMPTY
        },
        Command {
            usage: "doctor [options]",
            short: "Asks every member and tells what is wrong, or soon will be, and what to do",
            long: "Asks every member and tells what is wrong, or soon will be, and what to do.\n\nIt asks the members that \
                   the cluster lists and the endpoints that were given, for as long as --command-timeout at most, and \
                   compares versions, clocks (of HTTP answers, to the second), data (HashKV at one revision), revisions, \
                   raft indexes, sizes and quotas; it looks at alarms, certificates, learners, the number of voters, \
                   history that nobody compacts, and at the latencies of disks and network in /metrics.\n\nFindings are \
                   ranked: critical, warning, note. The exit code is 1 if one is critical. Formats: simple, json.",
            run: Some(doctor::run),
            ..Command::EMPTY
        },
        Command {
            usage: "perf [options]",
            short: "Tells whether the cluster keeps up with a rate of writes",
            flags: check::PERF_FLAGS,
            run: Some(check::perf),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const ALARM: Command = Command {
    usage: "alarm",
    short: "Alarms of the cluster; see `etcdctl alarm --help`",
    group: CLUSTER,
    commands: &[
        Command { usage: "disarm", short: "Ends all alarms", run: Some(cluster::alarm_disarm), ..Command::EMPTY },
        Command { usage: "list", short: "Lists the alarms", run: Some(cluster::alarm_list), ..Command::EMPTY },
    ],
    ..Command::EMPTY
};

const ENDPOINT: Command = Command {
    usage: "endpoint",
    short: "State of the endpoints, one by one; see `etcdctl endpoint --help`",
    group: CLUSTER,
    persistent: cluster::CLUSTER_FLAG,
    commands: &[
        Command {
            usage: "health",
            short: "Tells whether the endpoints serve",
            run: Some(cluster::health),
            ..Command::EMPTY
        },
        Command {
            usage: "status",
            short: "Prints version, size, leader and log position of the endpoints",
            run: Some(cluster::status),
            ..Command::EMPTY
        },
        Command {
            usage: "hashkv",
            short: "Prints a hash of the endpoints' key-value history",
            flags: cluster::HASHKV_FLAGS,
            run: Some(cluster::hash_kv),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const LEASE: Command = Command {
    usage: "lease",
    short: "Leases, which delete their keys when they end; see `etcdctl lease --help`",
    group: KEYS,
    commands: &[
        Command {
            usage: "grant <ttl>",
            short: "Makes a lease of so many seconds",
            run: Some(lease::grant),
            ..Command::EMPTY
        },
        Command { usage: "revoke <leaseID>", short: "Ends a lease", run: Some(lease::revoke), ..Command::EMPTY },
        Command {
            usage: "timetolive <leaseID> [options]",
            short: "Tells how long a lease has left",
            flags: lease::TIME_TO_LIVE_FLAGS,
            run: Some(lease::time_to_live),
            ..Command::EMPTY
        },
        Command { usage: "list", short: "Lists the leases", run: Some(lease::list), ..Command::EMPTY },
        Command {
            usage: "keep-alive [options] <leaseID>",
            short: "Renews a lease again and again",
            flags: lease::KEEP_ALIVE_FLAGS,
            run: Some(lease::keep_alive),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const MEMBER: Command = Command {
    usage: "member",
    short: "Members of the cluster; see `etcdctl member --help`",
    group: CLUSTER,
    commands: &[
        Command {
            usage: "add <memberName> [options]",
            short: "Adds a member",
            flags: cluster::MEMBER_ADD_FLAGS,
            run: Some(cluster::member_add),
            ..Command::EMPTY
        },
        Command {
            usage: "remove <memberID>",
            short: "Removes a member",
            run: Some(cluster::member_remove),
            ..Command::EMPTY
        },
        Command {
            usage: "update <memberID> [options]",
            short: "Changes a member's peer URLs",
            flags: cluster::MEMBER_UPDATE_FLAGS,
            run: Some(cluster::member_update),
            ..Command::EMPTY
        },
        Command {
            usage: "list",
            short: "Lists the members",
            long: "Lists the members.\n\nIn the format \"simple\" a line holds id, state, name, peer URLs, client URLs and \
                   whether the member is a learner.",
            flags: cluster::MEMBER_LIST_FLAGS,
            run: Some(cluster::member_list),
            ..Command::EMPTY
        },
        Command {
            usage: "promote <memberID>",
            short: "Gives a learner a vote",
            run: Some(cluster::member_promote),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const DOWNGRADE: Command = Command {
    usage: "downgrade",
    short: "Going back to an older version; see `etcdctl downgrade --help`",
    group: CLUSTER,
    commands: &[
        Command {
            usage: "validate <TARGET_VERSION>",
            short: "Checks whether the cluster could go back",
            run: Some(cluster::downgrade_validate),
            ..Command::EMPTY
        },
        Command {
            usage: "enable <TARGET_VERSION>",
            short: "Starts going back",
            run: Some(cluster::downgrade_enable),
            ..Command::EMPTY
        },
        Command {
            usage: "cancel",
            short: "Stays with the present version",
            run: Some(cluster::downgrade_cancel),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const AUTH: Command = Command {
    usage: "auth",
    short: "Authentication, on and off; see `etcdctl auth --help`",
    group: AUTHENTICATION,
    commands: &[
        Command {
            usage: "disable",
            short: "Lets everybody do everything again",
            run: Some(auth::disable),
            ..Command::EMPTY
        },
        Command {
            usage: "enable",
            short: "Lets only users in, each to what their roles allow",
            run: Some(auth::enable),
            ..Command::EMPTY
        },
        Command { usage: "status", short: "Tells whether it is on", run: Some(auth::status), ..Command::EMPTY },
    ],
    ..Command::EMPTY
};

const USER: Command = Command {
    usage: "user",
    short: "Users and their roles; see `etcdctl user --help`",
    group: AUTHENTICATION,
    commands: &[
        Command {
            usage: "add <user name or user:password> [options]",
            short: "Adds a user",
            flags: auth::USER_ADD_FLAGS,
            run: Some(auth::user_add),
            ..Command::EMPTY
        },
        Command {
            usage: "delete <user name>",
            short: "Removes a user",
            run: Some(auth::user_delete),
            ..Command::EMPTY
        },
        Command {
            usage: "get <user name> [options]",
            short: "Prints the roles of a user",
            flags: auth::USER_GET_FLAGS,
            run: Some(auth::user_get),
            ..Command::EMPTY
        },
        Command { usage: "list", short: "Lists the users", run: Some(auth::user_list), ..Command::EMPTY },
        Command {
            usage: "passwd <user name> [options]",
            short: "Changes the password of a user",
            flags: auth::USER_PASSWD_FLAGS,
            run: Some(auth::user_passwd),
            ..Command::EMPTY
        },
        Command {
            usage: "grant-role <user name> <role name>",
            short: "Gives a user a role",
            run: Some(auth::user_grant_role),
            ..Command::EMPTY
        },
        Command {
            usage: "revoke-role <user name> <role name>",
            short: "Takes a role from a user",
            run: Some(auth::user_revoke_role),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const ROLE: Command = Command {
    usage: "role",
    short: "Roles and their permissions; see `etcdctl role --help`",
    group: AUTHENTICATION,
    commands: &[
        Command { usage: "add <role name>", short: "Adds a role", run: Some(auth::role_add), ..Command::EMPTY },
        Command {
            usage: "delete <role name>",
            short: "Removes a role",
            run: Some(auth::role_delete),
            ..Command::EMPTY
        },
        Command {
            usage: "get <role name>",
            short: "Prints the permissions of a role",
            run: Some(auth::role_get),
            ..Command::EMPTY
        },
        Command { usage: "list", short: "Lists the roles", run: Some(auth::role_list), ..Command::EMPTY },
        Command {
            usage: "grant-permission [options] <role name> <permission type> <key> [endkey]",
            short: "Lets a role read, write or readwrite a key, or a range of keys",
            flags: auth::PERMISSION_FLAGS,
            run: Some(auth::role_grant_permission),
            ..Command::EMPTY
        },
        Command {
            usage: "revoke-permission <role name> <key> [endkey]",
            short: "Takes a permission from a role",
            flags: auth::PERMISSION_FLAGS,
            run: Some(auth::role_revoke_permission),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn version(_: &mut Call) -> Result<(), Exit> {
    let api = api::version::CLUSTER.trim_end_matches(".0");
    println!("etcdctl version: {}\nAPI version: {api}", api::version::SERVER);
    Ok(())
}

fn options(_: &mut Call) -> Result<(), Exit> {
    print!("The following options can be passed to any command:\n\n{}", flag_usages(globals::FLAGS));
    Ok(())
}
