#!/bin/busybox sh
# The first program of a guest's kernel. It makes a root of what the machine shows, and continues there.
# Arguments: the node's name, the cluster's directory, the cache's, and what to continue with.
#
# - The tag "machine" is the file system that the cluster's processes see. What is there never changes under
#   its name while the guest runs (programs; the cache, whose names are digests), so the guest keeps what it
#   has read: cache=loose.
# - The tag "state" is the cluster's directory. Files come and change there: cache=none.
# Both are read-only. What the guest writes goes into its memory.
set -e
/bin/busybox --install -s /bin
export PATH=/bin
name=$1 state=$2 cache=$3
shift 3
# What failed is the last thing on the console: a kernel that panics would say much more.
trap 'poweroff -f' EXIT

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module"; done

plan9=trans=virtio,version=9p2000.L,ro,msize=512000
mount -t 9p -o "$plan9,cache=loose" machine /machine
mount -t tmpfs -o size=80%,mode=755 tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work overlay /root
# On the machine, the other node's things are here.
for directory in var run tmp root; do mount -t tmpfs -o size=80%,mode=755 tmpfs /root/$directory; done
chmod 1777 /root/tmp
mkdir -p "/root$cache" "/root$state"
mount --bind "/machine$cache" "/root$cache"
mount -t 9p -o "$plan9,cache=none" state "/root$state"

for directory in proc sys dev; do mount --move /$directory /root/$directory; done
mount -t securityfs securityfs /root/sys/kernel/security
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mkdir /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
# As systemd does at boot: volumes with mount propagation need a shared root.
mount --make-rshared /root

# What QEMU's user network gives to a guest (qemu(1), -netdev user).
hostname "$name"
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
exec switch_root /root "$@"
