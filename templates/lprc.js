// lprc.js, beside the package.json of a literate program: litpro's settings. CommonJS, so not in a package
// of "type": "module".
module.exports = function (Folder, args) {
  // the documents to start with
  args.file = ["project.md"];

  // where results go; default: build
  // args.build = ["/absolute/path/of/build"];

  // plugins from npm, each listed in package.json: npm install --save-dev litpro-jshint
  // require("litpro-jshint")(Folder, args);

  // a command of your own: [shout.txt](#text "save:| shout")
  Folder.sync("shout", function (input) {
    return input.toUpperCase();
  });
};
