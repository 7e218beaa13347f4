// How the search counts: the same where the index is made and where it is asked.

/** What is found, and what is kept to show it. */
export const searchOptions = {
  fields: ["title", "page", "text"],
  storeFields: ["title", "page", "text"],
  searchOptions: {
    boost: { title: 4, page: 3 },
    prefix: true,
    fuzzy: (term: string) => (term.length > 4 ? 0.2 : false),
    combineWith: "AND" as const,
  },
};
