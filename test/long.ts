/**
 * Files that `npm run test:all` and .ci/run have and `npm test` has not, so that a newcomer is to wait five minutes at
 * most: paths below test/, and beside each its seconds in .ci/run. Of each script, and of each promise, tests stay in
 * `npm test`.
 */
export const long: Readonly<Record<string, number>> = {
  "docs/pages": 25,
  "house/completion": 25,
  "house/demo": 18,
  "house/json": 43,
  "house/packages": 32,
  "house/runner": 40,
  "house/site": 21,
  "scripts/build-managers": 49,
  "scripts/hook-server-hostile-clients": 27,
  "scripts/hook-server-odd": 20,
  "scripts/hook-server-page-access": 31,
  "scripts/killed": 64,
  "scripts/launchfit-health": 15,
  "scripts/launchfit-list": 30,
  "scripts/launchfit-mistake": 28,
  "scripts/launchfit-notify": 24,
  "scripts/launchfit-offline": 32,
  "scripts/launchfit-two": 18,
  "scripts/launchfit-undo": 32,
  "scripts/release-keys": 56,
  "scripts/setup-bus": 25,
  "scripts/setup-check": 49,
};
