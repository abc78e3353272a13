package follow

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// rooms are the files of the package. What a file does may be read knowing only the files after it.
var rooms = []string{
	"follow.go", "finish.go", "scanning.go", "missed.go", "deliver.go", "reclaim.go", "copy.go", "take.go", "trail.go", "park.go",
	"record.go", "index.go", "log.go", "generation.go", "handle.go", "names.go", "origin.go", "schedule.go", "pace.go",
}

// TestRooms: functions call only those of their own file and of files after it, and no struct is everybody's
// blackboard.
func TestRooms(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if ok, _ := filepath.Match("*_test.go", name); ok {
			continue
		}
		if !slices.Contains(rooms, name) {
			t.Errorf("%s has no place in the order of the rooms", name)
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if len(files) != len(rooms) {
		t.Errorf("have %d files, want %d", len(files), len(rooms))
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	pkg, err := conf.Check("follow", fset, files, info)
	if err != nil {
		t.Fatal(err)
	}
	room := func(pos token.Pos) string { return filepath.Base(fset.Position(pos).Filename) }
	for id, o := range info.Uses {
		if _, ok := o.(*types.Func); !ok || o.Pkg() != pkg {
			continue
		}
		if from, to := room(id.Pos()), room(o.Pos()); slices.Index(rooms, from) > slices.Index(rooms, to) {
			t.Errorf("%s calls %s, which is in %s", fset.Position(id.Pos()), o.Name(), to)
		}
	}

	// Which fields of a struct does somebody write outside the file that declares it?
	owner := map[types.Object]string{}
	for _, name := range pkg.Scope().Names() {
		if s, ok := pkg.Scope().Lookup(name).Type().Underlying().(*types.Struct); ok {
			for i := range s.NumFields() {
				owner[s.Field(i)] = name
			}
		}
	}
	written := map[string]map[string]bool{}
	note := func(e ast.Expr) {
		sel, ok := e.(*ast.SelectorExpr)
		if !ok {
			return
		}
		o := info.Uses[sel.Sel]
		if s := owner[o]; s != "" && room(o.Pos()) != room(sel.Pos()) {
			if written[s] == nil {
				written[s] = map[string]bool{}
			}
			written[s][o.Name()] = true
		}
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					note(e)
				}
			case *ast.IncDecStmt:
				note(n.X)
			}
			return true
		})
	}
	for s, fields := range written {
		if len(fields) > 15 {
			t.Errorf("%d fields of %s are written outside its file: %v", len(fields), s, slices.Sorted(maps.Keys(fields)))
		}
	}
	if len(written) == 0 {
		t.Error("no field is written anywhere: this test sees nothing")
	}
}
