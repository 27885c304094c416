package op

// shapeTable: operators that move elements and change shapes.
var shapeTable = []*Def{
	concatDef,
	constantOfShapeDef,
	expandDef,
	eyeLikeDef,
	flattenDef,
	gatherDef,
	gatherElementsDef,
	gatherNDDef,
	padDef,
	rangeDef,
	reshapeDef,
	sizeDef,
	sliceDef,
	splitDef,
	squeezeDef,
	tileDef,
	transposeDef,
	triluDef,
	unsqueezeDef,
}

// controlTable: operators with subgraphs.
var controlTable = []*Def{
	ifDef,
	loopDef,
	scanDef,
}
