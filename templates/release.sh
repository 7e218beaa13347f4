#!/bin/sh
# release.sh: what a release event does with this repo. Copy it to the top of the repo, set the four
# names below, chmod +x. `release` (called by hook-server) checks the tag out in a folder of its own,
# builds it there, and runs this script in that folder.
#
# It is told: RELEASE_TAG (v1.2.3), RELEASE_NAME, RELEASE_SHA, RELEASE_URL, RELEASE_PRERELEASE (true or
# false), HOOK_* when a delivery started it. What it prints goes into the run's log; the first command
# that fails ends it, and the release has failed.
set -eu

app=my-app                      # app.name of those who install it
from=build                      # the folder that is packed
folder=$HOME/releases           # kept from release to release; uploads.yml in it says where it goes
fleet=                          # a repo that the slaves should update too; empty: none

# A prerelease is built, so that its mistakes are seen, but not published.
if [ "${RELEASE_PRERELEASE:-false}" = true ]; then
  echo "prerelease $RELEASE_TAG: built, not published"
  exit 0
fi

# 1. Build. `release` has done that already; what differs for a release is built here:
# build --skip pull,uploads

# 2. Pack and sign: the archive, its signature, VERSION.sig and VERSION in $folder/app-updates.
#    Versions are dotted hexadecimal, so v1.2.3 becomes 1.2.3. For several platforms, pack once for each:
#    release pack … --platform gnu-linux --from build/linux
release pack --app "$app" --version "${RELEASE_TAG#v}" --name "$RELEASE_NAME" \
  --from "$from" --out "$folder/app-updates" --keep 10

# 3. See it as a client would, before anybody does.
release verify "$folder/app-updates"

# 4. Upload, archives first and VERSION last. $folder/uploads.yml has `from: app-updates`, or `from: .`
if [ -e "$folder/uploads.yml" ]; then
  uploads "$folder"
fi

# 5. Tell the fleet. (Machines with launchfit look by themselves, every updates.every.)
if [ -n "$fleet" ]; then
  server-update "$fleet" --sha "$RELEASE_SHA" --wait
fi
