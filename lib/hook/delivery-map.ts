/** Values by a repo's name and a delivery's id: of the two no key is put together, thousands of which a second are looked up. */
export class DeliveryMap<Value> {
  readonly #repos = new Map<string, Map<string, Value>>();

  get(repo: string, delivery: string): Value | undefined {
    return this.#repos.get(repo)?.get(delivery);
  }

  set(repo: string, delivery: string, value: Value): void {
    const values = this.#repos.get(repo);
    if (values) values.set(delivery, value);
    else this.#repos.set(repo, new Map([[delivery, value]]));
  }

  delete(repo: string, delivery: string): void {
    const values = this.#repos.get(repo);
    values?.delete(delivery);
    if (values?.size === 0) this.#repos.delete(repo);
  }
}
