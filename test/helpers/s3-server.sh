#!/bin/sh
# s3-server DIR PORT KEY SECRET: one monitor, one in-memory OSD and one RADOS Gateway on 127.0.0.1:PORT.
# Runs inside the chroot that .ci/s3 makes. Configuration: https://docs.ceph.com/en/latest/rados/configuration/
set -eu
dir=$1 port=$2 key=$3 secret=$4
monitor="v2:127.0.0.1:$((port + 1000)),v1:127.0.0.1:$((port + 1001))"
mkdir -p "$dir/mon" "$dir/osd" "$dir/rgw" "$dir/run" "$dir/log" "$dir/crash"
conf=$dir/ceph.conf

cat >"$conf" <<END
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon_host = [$monitor]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
run_dir = $dir/run
pid_file = $dir/run/\$name.pid
admin_socket = $dir/run/\$name.\$pid.asok
log_file = $dir/log/\$name.log
crash_dir = $dir/crash
# one disk, no copies: the least that serves
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 1
mon_data_avail_warn = 1
[mon]
mon_data = $dir/mon
keyring = $dir/keyring
[osd]
osd_data = $dir/osd
osd_objectstore = memstore
memstore_device_bytes = 8G
keyring = $dir/osd/keyring
[client.admin]
keyring = $dir/keyring
[client.rgw]
rgw_data = $dir/rgw
keyring = $dir/rgw/keyring
rgw_frontends = beast endpoint=127.0.0.1:$port
debug_rgw = 0
# what was deleted makes room at once, not after two hours
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 3
rgw_gc_processor_max_time = 3
END

# await SECONDS COMMAND...: until it is well
await() {
	end=$(($(date +%s) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ "$(date +%s)" -ge "$end" ]; then
			echo "waited in vain for: $*"
			exit 1
		fi
		sleep 0.3
	done
}
ceph() { timeout 60 /usr/bin/ceph -c "$conf" "$@"; }
osd_is_up() { ceph osd stat | grep -q '1 up'; }

ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
ceph-authtool "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
fsid=$(sed -n 's/^fsid = //p' "$conf")
monmaptool --create --clobber --addv a "[$monitor]" --fsid "$fsid" "$dir/monmap"
ceph-mon -c "$conf" -i a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring"
ceph-mon -c "$conf" -i a

disk=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$disk" 0
ceph auth get-or-create osd.0 mon 'allow profile osd' osd 'allow *' -o "$dir/osd/keyring"
ceph auth get-or-create client.rgw mon 'allow rw' osd 'allow rwx' -o "$dir/rgw/keyring"
ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$disk"
ceph-osd -c "$conf" -i 0
await 60 osd_is_up

timeout 120 radosgw -c "$conf" -n client.rgw
await 60 curl -s -o /dev/null "http://127.0.0.1:$port/"
timeout 60 radosgw-admin -c "$conf" -n client.rgw user create \
	--uid=boatyard --display-name=boatyard --access-key="$key" --secret-key="$secret" >"$dir/user.json"
