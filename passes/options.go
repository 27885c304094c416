package passes

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// arg is one key=value of a step.
type arg struct{ key, value string }

// optionField is one field of an options struct.
type optionField struct {
	index int
	info  OptionInfo
	enum  []string
}

// optionFields reads the options that a struct declares.
func optionFields(defaults any) ([]optionField, error) {
	v := reflect.ValueOf(defaults)
	if v.Kind() != reflect.Struct {
		return nil, fmt.Errorf("options are a %v, wanted a struct", v.Kind())
	}
	var fields []optionField
	for i := range v.NumField() {
		t := v.Type().Field(i)
		name := t.Tag.Get("opt")
		if name == "" {
			name = strings.ToLower(t.Name)
		}
		f := optionField{index: i, info: OptionInfo{Name: name, Default: formatOption(v.Field(i)), Doc: t.Tag.Get("doc")}}
		switch t.Type.Kind() {
		case reflect.Int, reflect.Int64:
			f.info.Type = "integer"
		case reflect.Float64:
			f.info.Type = "number"
		case reflect.Bool:
			f.info.Type = "bool"
		case reflect.String:
			f.info.Type = "text"
			if e := t.Tag.Get("enum"); e != "" {
				f.enum = strings.Split(e, "|")
				f.info.Type = e
			}
		default:
			return nil, fmt.Errorf("option %q has type %v, which no text decodes to", name, t.Type)
		}
		if !t.IsExported() {
			return nil, fmt.Errorf("option field %q is not exported", t.Name)
		}
		fields = append(fields, f)
	}
	return fields, nil
}

// setOptions decodes args into *opts; unknown and repeated keys are errors.
func setOptions(fields []optionField, opts any, args []arg) error {
	v := reflect.ValueOf(opts).Elem()
	seen := map[string]bool{}
	for _, a := range args {
		i := slices.IndexFunc(fields, func(f optionField) bool { return f.info.Name == a.key })
		if i < 0 {
			var names []string
			for _, f := range fields {
				names = append(names, f.info.Name)
			}
			if names == nil {
				return fmt.Errorf("option %q: the pass has no options", a.key)
			}
			return fmt.Errorf("option %q is unknown, wanted one of %s", a.key, strings.Join(names, ", "))
		}
		if seen[a.key] {
			return fmt.Errorf("option %q is given twice", a.key)
		}
		seen[a.key] = true
		if err := setOption(v.Field(fields[i].index), fields[i], a.value); err != nil {
			return fmt.Errorf("option %s=%s: wanted %s", a.key, a.value, fields[i].info.Type)
		}
	}
	return nil
}

func setOption(v reflect.Value, f optionField, text string) error {
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		v.SetInt(n)
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return err
		}
		v.SetFloat(x)
	case reflect.Bool:
		switch text {
		case "true", "yes", "1":
			v.SetBool(true)
		case "false", "no", "0":
			v.SetBool(false)
		default:
			return strconv.ErrSyntax
		}
	case reflect.String:
		if f.enum != nil && !slices.Contains(f.enum, text) {
			return strconv.ErrSyntax
		}
		v.SetString(text)
	}
	return nil
}

func formatOption(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.String:
		return v.String()
	}
	return fmt.Sprint(v.Interface())
}

// optionText prints the options that differ from their defaults, in the order of the struct.
func optionText(fields []optionField, opts, defaults any) string {
	v, d := reflect.ValueOf(opts), reflect.ValueOf(defaults)
	var parts []string
	for _, f := range fields {
		if s := formatOption(v.Field(f.index)); s != formatOption(d.Field(f.index)) {
			parts = append(parts, f.info.Name+"="+s)
		}
	}
	return strings.Join(parts, " ")
}
