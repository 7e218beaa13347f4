/** Written by tools/templates.ts from templates/: change those, then run npm run templates. */
export const templates = {
  "boatyard-bus.service": `# The bus of a fleet: Debian's nats-server with /etc/boatyard/nats.conf, as \`setup bus\` writes it.
[Unit]
Description=Boatyard: bus of a fleet (NATS)
Documentation=man:boatyard-setup(1)
After=network-online.target
Wants=network-online.target
Conflicts=nats-server.service

[Service]
# its start fails, in words, when it cannot read its files
Type=exec
ExecStartPre=/usr/sbin/nats-server -t -c /etc/boatyard/nats.conf
User=nats
Group=nats
ExecStart=/usr/sbin/nats-server -c /etc/boatyard/nats.conf
ExecReload=/bin/kill -s HUP $MAINPID
KillSignal=SIGINT
Restart=on-failure
RestartSec=2s
LimitNOFILE=65536
ReadWritePaths=/var/lib/boatyard-bus

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectProc=invisible
ProcSubset=pid
# netlink: which addresses this machine has
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
`,
  "build@.service": `# Builds /home/NAME/NAME as the user NAME, when its branch has a new commit: for a server that no webhook reaches.
# Copy to /etc/systemd/system/ with build@.timer, then: systemctl enable --now build@site.timer
[Unit]
Description=Boatyard: build %i if it changed
Documentation=man:boatyard-build(1)
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
User=%i
WorkingDirectory=/home/%i/%i
ReadWritePaths=/home/%i
ExecStart=/usr/local/bin/build /home/%i/%i --if-changed --quiet
# 3: another build is under way, which is well
SuccessExitStatus=3
TimeoutStartSec=1h
KillMode=control-group
Environment=PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
Nice=5

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0022
`,
  "build@.timer": `# Looks every five minutes; servers with many of them do not ask the forge in the same second.
[Unit]
Description=Boatyard: look for new commits of %i
Documentation=man:boatyard-build(1)

[Timer]
OnBootSec=1min
OnUnitInactiveSec=5min
RandomizedDelaySec=60
AccuracySec=10s

[Install]
WantedBy=timers.target
`,
  "hook-server.service": `# hook-server as a service: takes webhooks, and builds each repo as the repo's own user.
# Copy to /etc/systemd/system/ with hook-server.socket, then: systemctl enable --now hook-server.socket hook-server.service
# It starts as root, because only root can build as others; it keeps just the powers that this takes.
# On a server where one account builds everything, set User= to it and empty CapabilityBoundingSet=.
[Unit]
Description=Boatyard: webhooks in, builds out
Documentation=man:boatyard-hook-server(1) man:hooks.yml(5)
Requires=hook-server.socket
After=network-online.target hook-server.socket
Wants=network-online.target
JoinsNamespaceOf=hook-server.socket

[Service]
Type=notify
# systemd-notify is a child of its own. Nothing of a repo's user is in this unit's cgroup: runs, and git for them, are in
# boatyard-runs.scope, and what they say to systemd is not taken for the server's word.
NotifyAccess=all
ExecStart=/usr/local/bin/hook-server --config /etc/boatyard/hooks.yml
# not /bin/kill: a small Debian has none
ExecReload=/bin/sh -c 'kill -HUP "$$1"' sh $MAINPID
Restart=on-failure
RestartSec=2s
WatchdogSec=60s
# TERM reaches the server alone: it lets the runs end (drain: 5m). Those still under way then go on in
# boatyard-runs.scope, also when the server is killed, and the next server takes them over. To end them all:
# systemctl stop boatyard-runs.scope. With User= add Delegate=yes; from systemd 254 on, DelegateSubgroup=server with
# KillMode=process lets runs go on there, too.
KillMode=mixed
TimeoutStopSec=6min
Environment=PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8

# Folders. Builds write below /home; the system is read-only for them and for the server. Their /tmp is the socket's, too
# (JoinsNamespaceOf=): systemd removes a private one when the last unit that has it stops, and runs outlive this one.
StateDirectory=boatyard
StateDirectoryMode=0711
ProtectSystem=strict
# those of its repos, and what server-update keeps, for \`on_success:\`
ReadWritePaths=/home -/var/lib/server-update
PrivateTmp=yes
PrivateMounts=yes
PrivateDevices=yes
# a build sees its own processes alone; SYS_PTRACE lets the server see them all
ProtectProc=invisible
UMask=0022

# Powers. SETUID, SETGID, SETPCAP: to become the repo's user, and nothing more. KILL, SYS_PTRACE: to end and to
# find what a run has started. DAC_READ_SEARCH: to look into a closed home. CHOWN, FOWNER: to hand a payload over.
# systemd-analyze security says 3.4: root, these eight powers, the network and /home are the job itself; with User= and
# no powers it is below 3.
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER
AmbientCapabilities=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectClock=yes
ProtectHostname=yes
# the server makes a cgroup for each run; only root can write there, and a build is not root
ProtectControlGroups=no
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
# @resources stays: a build may be nice
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# no MemoryDenyWriteExecute: Node compiles as it runs

[Install]
WantedBy=multi-user.target
`,
  "hook-server.socket": `# The address of hook-server. systemd holds it, so that deliveries wait, and none fails, while the server restarts.
[Unit]
Description=Boatyard: the address of hook-server
Documentation=man:boatyard-hook-server(1)

[Socket]
# nginx or Caddy stands before it. Keep it in step with listen: in hooks.yml
ListenStream=127.0.0.1:3420
NoDelay=yes
# the /tmp of the service and its runs, which is kept while the service restarts; made when a command of this unit starts
PrivateTmp=yes
ExecStartPre=/bin/true

[Install]
WantedBy=sockets.target
`,
  "hooks.yml": `# The configuration of hook-server: copy it to /etc/boatyard/hooks.yml, edit it, then run \`hook-server --check\`.
# A change of this file, or of a secret, is taken over at once; a wrong one is refused and the old one stays.
# Relative paths start from this file's folder. Durations: 90s, 15m, 2h, 1d. Sizes: 10k, 5M, 2G.
# yaml-language-server: $schema=../schemas/hooks.json

listen: 127.0.0.1:3420            # behind nginx or Caddy; unix:/run/boatyard/hook.sock works too
state: /var/lib/boatyard          # queue, runs and their logs
concurrency: 2                    # runs at once, over all repos; never two of one repo
drain: 5m                         # how long a stop waits for the runs under way
keep: 50                          # ended runs that are kept of each repo …
keep_for: 30d                     # … and how long
max_log: 100M                     # a run that writes more than this is ended
max_waiting: 1000                 # runs of one repo that may wait; more deliveries are answered 429
# limits: { memory: 2G, cpu: 150%, processes: 500 }   # of each run; a repo may have its own; default: none

# One of several builders, which share their runs by a bus: docs/many-machines.md, "Several builders". name: the machine's.
# builders: { bus: { url: "tls://bus.example.com:4222", seed_file: bus.seed }, name: builder-1, labels: [big], lease: 30s }

# Who may see runs and steer over HTTP: programs by the token, people by the password on a page (docs/page.md).
# Without it only the Unix socket STATE/socket does that.
# status: { token_file: /etc/boatyard/status.token, password_file: /etc/boatyard/page.password }

# Who is told of what becomes of runs: see docs/notify.md.
# url: https://ci.example.com       # where the server's pages are, for links to runs (RUN_URL)
# forge: { github.com: { kind: github, token_file: /etc/boatyard/github.token } }   # commit statuses; gitea, gitlab, bitbucket, bitbucket-dc
# notify: [{ email: { to: ops@example.com, server: "smtp://mail.example.com", user: ci, password_file: /etc/boatyard/mail.password } }]   # messages: email, webhook, ntfy, command
# on_failure: 'logger "$HOOK_REPO failed in $RUN_STAGE: $RUN_URL"'   # commands after a failed run; a repo may have its own
# on_change: [/usr/local/bin/lamp]  # commands after the first failure, and after the first good run

repos:
  jostylr/site:                   # owner/name as the forge sends it
    user: site                    # the Unix account that builds; default: the server's own
    dir: /home/site/site          # its checkout
    secret_file: /etc/boatyard/site.secret    # mode 600, 16 characters or more, or GitLab's signing token (whsec_…); a list of two while one is rotated
    refs: [main]                  # branches, release/* or refs/tags/v*; default: the checkout's branch
    timeout: 30m                  # then the run is ended with all that it started
    poll: 15m                     # look for missed pushes; false: never
    # on_success: [server-update site]  # commands after a good push run, as the server's user, in / (HOOK_DIR names the checkout); its former name is then
    on: { push: build, release: release }     # scripts of ours or absolute paths; false: nothing
    cancel: false                 # true: a newer push ends the run of an older one
    # runs_on: [builder-1, big]   # of several builders those that may run it, by name or label; default: all
    # insecure: true              # no secret: anybody who reaches the server may start builds
`,
  "launchfit@.service": `# An app that updates itself. The account, the folder below /srv and the instance have one name:
#   useradd --system --home-dir /srv/my-app --create-home my-app
#   install in /srv/my-app as my-app: launchfit https://example.com/app-updates --key FINGERPRINT
#   systemctl enable --now launchfit@my-app
# The app runs inside these fences too: loosen in launchfit@my-app.service.d/ what it cannot live with.
[Unit]
Description=Boatyard: %i, kept running and up to date
Documentation=man:boatyard-launchfit(1) man:launchify.yml(5)
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=all
User=%i
WorkingDirectory=/srv/%i
ReadWritePaths=/srv/%i
ExecStart=/usr/local/bin/launchfit
Restart=on-failure
RestartSec=5s
WatchdogSec=120s
# launchfit ends its app itself; the rest goes with it
KillMode=mixed
TimeoutStartSec=5min
TimeoutStopSec=90s
Environment=PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 XDG_RUNTIME_DIR=/run/launchfit-%i
RuntimeDirectory=launchfit-%i
RuntimeDirectoryMode=0700

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0022

[Install]
WantedBy=multi-user.target
`,
  "logs-rotate@.service": `# Rotates the log of /home/NAME/NAME as the user NAME: compresses the parts and removes the oldest.
# Copy to /etc/systemd/system/ with logs-rotate@.timer, then: systemctl enable --now logs-rotate@site.timer
# For a checkout elsewhere change both paths in logs-rotate@site.service.d/.
[Unit]
Description=Boatyard: rotate the log of %i
Documentation=man:boatyard-logs-rotate(1)
# before its first build there is nothing to rotate
ConditionPathExists=/home/%i/%i

[Service]
Type=oneshot
User=%i
ExecStart=/usr/local/bin/logs rotate /home/%i/%i --max-size 10M --max-age 7d --keep 10
ReadWritePaths=/home/%i
Environment=PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
Nice=10
IOSchedulingClass=idle

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0022
`,
  "logs-rotate@.timer": `# Starts logs-rotate@NAME.service every hour; a missed time is made up for after a boot.
[Unit]
Description=Boatyard: rotate the log of %i every hour
Documentation=man:boatyard-logs-rotate(1)

[Timer]
OnCalendar=hourly
RandomizedDelaySec=10m
Persistent=yes

[Install]
WantedBy=timers.target
`,
  "nats.conf": `# nats.conf: the bus of a fleet, see docs/many-machines.md. \`setup bus\` puts it at /etc/boatyard/nats.conf, and beside it
# nats-users.conf, which \`setup bus add\` and \`setup bus remove\` change. After a change by hand: systemctl reload boatyard-bus
listen: "0.0.0.0:4222"
server_name: boatyard

# The certificate is for the name that slaves and masters connect to; the user nats must be able to read both files.
tls {
  cert_file: "/etc/boatyard/bus.crt"
  key_file: "/etc/boatyard/bus.key"
  timeout: 10
}

# Orders and reports: a few kB for each slave. All of it can be lost: server-update --converge puts the orders there
# again, and slaves report every minute.
jetstream {
  store_dir: "/var/lib/boatyard-bus"
  max_memory_store: 64M
  max_file_store: 1G
}

# Who may do what.
authorization {
  # a thousand may connect in one instant
  timeout: 30
  include ./nats-users.conf
}

# No monitoring port, no cluster, no leaf nodes; and bounds.
max_connections: 20000
max_subscriptions: 100
max_control_line: 4KB
max_payload: 1MB
max_pending: 16MB
write_deadline: "10s"
ping_interval: "30s"
ping_max: 2
`,
  "nginx-hooks.conf": `# hook-server behind nginx: put this into the server block of your site that has a certificate.
#   cp nginx-hooks.conf /etc/nginx/snippets/boatyard-hooks.conf
#   then in the server block: include snippets/boatyard-hooks.conf;
# The forge's URL is then https://YOUR.HOST/hook

location ~ ^/(hook|github/callback)$ {
    # GitHub's own limit; hook-server refuses more as well
    client_max_body_size 25m;
    client_body_timeout 10s;
    proxy_pass http://127.0.0.1:3420;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_connect_timeout 5s;
    proxy_read_timeout 30s;
}

# The page of runs and logs, and metrics, for those who sign in or have a token (status: in hooks.yml). Remove it if it is
# not needed from outside. With "listen 443 ssl http2;" a browser can follow more than six logs at once.
location ~ ^/($|(runs|repos|live|page|sign-in|sign-out|fleet|releases|ignored|metrics|healthz)(/|$)) {
    proxy_pass http://127.0.0.1:3420;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    # a log that is followed comes line by line, for as long as the run lasts
    proxy_buffering off;
    proxy_read_timeout 1h;
}
`,
  "server-update.service": `# Brings slaves along that the last run of server-update did not reach. Started by server-update.timer.
# Copy both to /etc/systemd/system/, then: systemctl enable --now server-update.timer
[Unit]
Description=Boatyard: slaves that were down are brought along
Documentation=man:boatyard-server-update(1)
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/local/bin/server-update --converge --quiet
StateDirectory=server-update
# With a secret that the slaves share (a key is found at /etc/server-update/master.key):
# Environment=SERVER_UPDATE_SECRET_FILE=/etc/server-update/secret
Environment=PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/root
TimeoutStartSec=1h

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0022
`,
  "server-update.timer": `# Every five minutes: server-update --converge.
[Unit]
Description=Boatyard: slaves that were down are brought along, every five minutes
Documentation=man:boatyard-server-update(1)

[Timer]
OnBootSec=2min
OnUnitActiveSec=5min
RandomizedDelaySec=30s

[Install]
WantedBy=timers.target
`,
  "slave-server.service": `# slave-server as a service: waits for GET /get/?repo=NAME and brings ~/repos/NAME up to date.
# Copy to /etc/systemd/system/ with slave-server.socket, then: systemctl enable --now slave-server.socket slave-server.service
# The account is \`slave\`, its home /srv/slave: change both lines for another.
[Unit]
Description=Boatyard: slave of a master server
Documentation=man:boatyard-slave-server(1) man:slave.yml(5)
Requires=slave-server.socket
After=network-online.target slave-server.socket
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=all
User=slave
WorkingDirectory=/srv/slave
ReadWritePaths=/srv/slave
ExecStart=/usr/local/bin/slave-server --config /etc/boatyard/slave.yml
Restart=on-failure
RestartSec=2s
WatchdogSec=60s
KillMode=mixed
TimeoutStopSec=30s
Environment=PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0022

[Install]
WantedBy=multi-user.target
`,
  "slave-server.socket": `# The address of slave-server: 9999 is the port that server-update asks. What others reach needs a master_key or a secret in slave.yml.
[Unit]
Description=Boatyard: the address of slave-server
Documentation=man:boatyard-slave-server(1)

[Socket]
ListenStream=0.0.0.0:9999
NoDelay=yes

[Install]
WantedBy=sockets.target
`,
  "slavelist.txt": `# /etc/server-update/slavelist.txt: the slaves that server-update tells, one a line.

# A host; its slave-server listens on port 9999.
slave1.example.com
# Another port, an address, an IPv6 address.
slave2.example.com:9001
192.0.2.17
[2001:db8::17]:9999
# Orders name their slave: by its host, or as its slave.yml calls it.
192.0.2.18 name=web-18

# A group: server-update site --group europe
[europe]
# web01.example.com to web20.example.com, and three more
web[01-20].eu.example.com
db[1,3,7].eu.example.com

# Behind TLS: the address of the endpoint itself.
[america]
https://slave.us.example.com/boatyard/get/
`,
} as const;
