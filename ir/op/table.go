package op

// tables lists every operator, a slice a family; a test checks the rows.
var tables = [][]*Def{
	contribTable,
	coreTable,
	controlTable,
	nnTable,
	shapeTable,
	quantTable,
	mathTable,
}

// coreTable: constants, identities and shapes.
var coreTable = []*Def{
	constantDef,
	identityDef,
	shapeDef,
}
