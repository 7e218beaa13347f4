module.exports = function (Folder, args) {
  args.file = ["project.md"];
};
