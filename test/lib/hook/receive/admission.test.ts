import * as assert from "uvu/assert";
import { test } from "uvu";
import { Admission, type Place } from "../../../../lib/hook/receive/admission.ts";

/** The status that a place was answered with when it had to give way. */
const statuses = new Map<Place, number>();
const statusOf = (place: Place) => statuses.get(place);

function enter(admission: Admission, address: string): Place {
  const place = admission.enter(address, ({ status }) => statuses.set(place, status));
  return place;
}

test("what was kept most for longest gives way, and a small one stays", async () => {
  const admission = new Admission({ arriving: 1000, kept: 1000 });
  const slow = enter(admission, "10.0.0.1");
  slow.grow(300);
  await new Promise((resolve) => setTimeout(resolve, 60));
  const small = enter(admission, "10.0.0.1");
  const large = enter(admission, "10.0.0.2");
  large.grow(400);
  small.grow(10);
  const more = enter(admission, "10.0.0.1");
  more.grow(180);
  assert.equal([slow, small, large, more].map(statusOf), [undefined, undefined, undefined, undefined]);
  // its network has more than half now
  more.grow(20);
  assert.equal([slow, small, large, more].map(statusOf), [429, undefined, undefined, undefined]);
});

test("many networks share the space: the one that has most makes room", () => {
  const admission = new Admission({ arriving: 1000, kept: 1000 });
  const places = Array.from({ length: 12 }, (_, n) => {
    const place = enter(admission, `2001:db8:0:${n}::1`);
    place.grow(n === 5 ? 200 : 80);
    return place;
  });
  assert.is(places[5] && statusOf(places[5]), 429);
  assert.is(places.filter((place) => statusOf(place) === undefined).length, 11);
});

test("an announced length costs nothing, and who leaves frees what he had", () => {
  const admission = new Admission({ arriving: 100, kept: 100 });
  const idle = Array.from({ length: 10_000 }, () => enter(admission, "10.0.0.1"));
  for (let n = 0; n < 20; n++) {
    const place = enter(admission, "10.0.0.2");
    place.grow(40);
    place.leave();
    place.leave();
    admission.keep(40);
    admission.release(40);
    assert.is(statusOf(place), undefined);
  }
  assert.ok(idle.every((place) => statusOf(place) === undefined));
});

test("genuine bodies have a space of their own, and are told when it is full", () => {
  const admission = new Admission({ arriving: 100, kept: 80 });
  const arriving = enter(admission, "10.0.0.1");
  arriving.grow(50);
  admission.keep(50);
  assert.throws(() => admission.keep(50), /too many large deliveries/);
  admission.release(50);
  admission.keep(50);
  assert.is(statusOf(arriving), undefined);
});

test.run();
