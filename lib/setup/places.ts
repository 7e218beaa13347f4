/** Where setup puts things, on the finished system. */
export const places = {
  config: "/etc/boatyard",
  hooks: "/etc/boatyard/hooks.yml",
  list: "/etc/server-update/slavelist.txt",
  listSecret: "/etc/server-update/secret",
  slave: "/etc/boatyard/slave.yml",
  slaveSecret: "/etc/boatyard/slave.secret",
  scripts: "/usr/local/lib/boatyard",
  bin: "/usr/local/bin",
  units: "/etc/systemd/system",
  state: "/var/lib/boatyard",
};
