#!/usr/bin/env bash
# Installs the Debian packages that the cluster tests and those of shared limits need beside Go and scripts/control_plane/build.sh. Run as root; installs what is missing.
# Debian's kubectl (kubernetes-client 1.20) is too old to be of use: build.sh makes the matching one.
set -euo pipefail
packages=(iproute2 nftables util-linux openssl hostname prometheus redis-server)
missing=()
for package in "${packages[@]}"; do
  # shellcheck disable=SC2016 # ${Status} is dpkg-query's own
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ]; then
  echo "debian.sh: run as root to install ${missing[*]}" >&2
  exit 2
fi
echo "installing ${missing[*]} ..." >&2
export DEBIAN_FRONTEND=noninteractive
# A package that brings a service must not start it here: tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
